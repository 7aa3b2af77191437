{{- define "treepo.name" -}}
{{- printf "%s" .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "treepo.selector" -}}
app.kubernetes.io/name: treepo
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "treepo.labels" -}}
{{ include "treepo.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end -}}

{{- /* What is left of the grace period is for the last answers and for the engine's end. */ -}}
{{- define "treepo.env" -}}
{{- $drain := sub .Values.terminationGracePeriodSeconds 15 | max 1 | toString -}}
{{ mergeOverwrite (dict "TREEPO_DRAIN_S" $drain) .Values.env | toYaml }}
{{- end -}}

{{- define "treepo.secret" -}}
{{- if .Values.secret.existing -}}
{{ .Values.secret.existing }}
{{- else if or .Values.secret.apiKey .Values.secret.hfToken -}}
{{ include "treepo.name" . }}
{{- end -}}
{{- end -}}
