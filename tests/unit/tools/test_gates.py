"""The gates let pass what is allowed and name file, line and remedy for what is not."""

from pathlib import Path

import pytest

from tools import gates, lock

HERE = Path("treepo/a.py")


def breaches(gate, path, *lines):
    return [breach.partition(":")[0] for breach in gate(path, list(lines))]


def test_a_file_of_400_lines_passes_and_one_more_does_not():
    assert breaches(gates.length, HERE, *["x"] * 400) == []
    assert breaches(gates.length, HERE, *["x"] * 401) == ["400"]
    assert breaches(gates.length, Path("notes.md"), *["x"] * 401) == []


@pytest.mark.parametrize("folder", ["home", "root", "Users", "work"])
def test_a_path_of_one_machine_is_found(folder):
    assert breaches(gates.machine_paths, HERE, "x = 1", f'open("/{folder}/joe/a.txt")') == ["2"]


@pytest.mark.parametrize(
    "line",
    ["GET /v1/work/3", "~/work/a", "$HOME/work/a", "https://a.b/home/x", "and/or", "/usr/bin"],
)
def test_other_slashes_are_not_paths_of_one_machine(line):
    assert breaches(gates.machine_paths, HERE, line) == []


def test_requirements_name_no_index():
    line = "--" + "index-url somewhere"
    assert breaches(gates.index_hosts, Path("requirements/cpu.in"), line) == ["1"]
    assert breaches(gates.index_hosts, Path("docs/install.md"), line) == []


def test_a_docstring_names_no_file_that_is_gone():
    kept = ['"""One.', "", "See `tree.py`, `growth/state.py` and `a_name.txt`.", '"""']
    assert breaches(gates.named_files, HERE, *kept) == []
    lost = ['"""One.', "", "See `growth/tree.py`.", '"""', "# `no_such_file.py`"]
    assert breaches(gates.named_files, HERE, *lost) == ["3"]
    assert breaches(gates.named_files, Path("notes.md"), "`no_such_file.py`") == []


def test_the_lock_leaves_out_torch_and_what_belongs_to_cuda():
    kept = "a==1 \\\n    --hash=sha256:00\ntriton==3.7.1\ntorch-like==1\n"
    left_out = "torch==2.13.0\nnvidia-cublas==13 \\\n    --hash=sha256:00\ncuda-toolkit==13\n"
    assert lock.without(left_out + kept + "torchvision==1\n", lock.LEFT_OUT) == kept


@pytest.mark.parametrize(("name", "least"), [("cpu", 100), ("clients", 50)])
def test_the_committed_locks_are_hashed_and_hold_nothing_left_out(name, least):
    text = (lock.FOLDER / f"{name}.lock").read_text()
    assert lock.without(text, lock.LOCKS[name]) == text
    pins = [line for line in text.splitlines() if line and line[0] not in " #"]
    assert len(pins) > least
    assert all("==" in pin and pin.endswith("\\") for pin in pins)
