"""The wrapper under CI, which runs before anything is installed."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("code", [0, 3])
def test_it_keeps_the_exit_code_of_what_it_runs(code):
    command = [sys.executable, "-I", "-c", f"raise SystemExit({code})"]
    whole = [sys.executable, "-m", "tools.contained", *command]
    assert subprocess.run(whole, cwd=ROOT, check=False).returncode == code
