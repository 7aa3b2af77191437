"""`treepo serve` hands vLLM's own parser what the user said, and fills in only what is open."""

import json
import subprocess
import sys

import pytest

PARSE = """
import json, os, sys
from pathlib import Path
from treepo_server.launch import vllm_serve

vllm_serve.prepare = lambda: Path("embedded-folder")
vllm_serve._enable_plugin()
shown = []
for argv in json.load(sys.stdin):
    args = vars(vllm_serve._parsed(argv)[1])
    args["plugins"] = os.environ["VLLM_PLUGINS"]
    shown.append({name: args[name] for name in sys.argv[1:]})
print(json.dumps(shown))
"""
FIELDS = (
    "model_tag",
    "served_model_name",
    "max_model_len",
    "dtype",
    "block_size",
    "enforce_eager",
    "max_num_seqs",
    "enable_chunked_prefill",
    "api_server_count",
    "port",
    "plugins",
)
COMMANDS = {
    "nothing": [],
    "a name": ["--served-model-name", "mine", "--port", "8001"],
    "the embedded model": ["smollm2-135m-instruct", "--max_model_len", "512"],
    "another model": ["some/model", "--api-server-count", "2"],
    "other settings": [
        *("some/model", "--dtype", "auto", "--block-size=128", "--no-enforce-eager"),
        *("--max-num-seqs", "7", "--enable-chunked-prefill"),
    ],
}
CPU = {
    "dtype": "float32",
    "block_size": 32,
    "enforce_eager": True,
    "max_num_seqs": 64,
    "enable_chunked_prefill": False,
}


@pytest.fixture(scope="module")
def parsed():
    """What each of the commands comes to."""
    done = subprocess.run(
        [sys.executable, "-c", PARSE, *FIELDS],
        input=json.dumps(list(COMMANDS.values())),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(zip(COMMANDS, json.loads(done.stdout.splitlines()[-1]), strict=True))


def test_no_model_means_the_embedded_one_with_settings_that_work_on_a_cpu(parsed):
    found = parsed["nothing"]
    assert found["model_tag"] == "embedded-folder"
    assert found["served_model_name"] == ["smollm2-135m-instruct"]
    assert found["max_model_len"] == 4096
    assert found.items() >= CPU.items()


def test_the_embedded_model_can_be_named_or_renamed(parsed):
    assert parsed["a name"]["model_tag"] == "embedded-folder"
    assert parsed["a name"]["served_model_name"] == ["mine"]
    assert parsed["a name"]["port"] == 8001
    assert parsed["the embedded model"]["model_tag"] == "embedded-folder"
    assert parsed["the embedded model"]["max_model_len"] == 512


def test_another_model_gets_the_same_settings_and_its_own_length(parsed):
    found = parsed["another model"]
    assert (found["model_tag"], found["max_model_len"]) == ("some/model", None)
    assert found["api_server_count"] == 2
    assert found.items() >= CPU.items()


def test_every_setting_can_be_chosen_otherwise(parsed):
    assert (
        parsed["other settings"].items()
        >= {
            "dtype": "auto",
            "block_size": 128,
            "enforce_eager": False,
            "max_num_seqs": 7,
            "enable_chunked_prefill": True,
        }.items()
    )


def test_vllms_own_plugins_stay_enabled(parsed):
    names = parsed["nothing"]["plugins"].split(",")
    assert {"treepo", "lora_filesystem_resolver", "lora_hf_hub_resolver"} <= set(names)
