"""Each peer's environment is made from its lock, once, and anew when the lock changes."""

import subprocess
from pathlib import Path

import pytest

from bench.peers import environments
from bench.peers.environments import lock_of, python_of, version_of
from bench.peers.methods import METHODS
from treepo.errors import ConfigError

PEERS = sorted({method.peer for method in METHODS if method.peer})


@pytest.mark.parametrize("peer", PEERS)
def test_a_lock_pins_the_peer_and_every_package_with_its_hashes(peer: str) -> None:
    assert version_of(peer)[0].isdigit()
    packages = [line for line in lock_of(peer).read_text().splitlines() if "==" in line]
    assert all(line.endswith(" \\") for line in packages)
    names = {line.partition("==")[0] for line in packages}
    assert not names & {"torch", "transformers", "vllm", "spacy"}


def test_an_environment_is_made_once_for_each_lock(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    lock = tmp_path / "peers-some.lock"
    for text, is_made in (("# nothing\n", True), ("# nothing\n", False), ("# other\n", True)):
        lock.write_text(text)
        python = python_of("some", tmp_path)
        assert ("an environment for some" in capsys.readouterr().err) is is_made
        prefix = subprocess.check_output([python, "-c", "import sys; print(sys.prefix)"], text=True)
        assert Path(prefix.strip()) == tmp_path / "peers-some"


def test_what_cannot_be_installed_leaves_no_stamp(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "peers-some.lock").write_text("some==1.0\n")  # no hash, so pip refuses
    with pytest.raises(ConfigError, match="no environment for some"):
        python_of("some", tmp_path)
    assert not (tmp_path / "peers-some" / "stamp").exists()


def test_a_lock_without_its_peer_is_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environments, "REQUIREMENTS", tmp_path)
    (tmp_path / "peers-some.lock").write_text("other==1.0\n")
    with pytest.raises(ConfigError, match="pins no `some`"):
        version_of("some")
