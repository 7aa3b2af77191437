"""A wheel built from the repository holds both packages and works without the repository."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PROGRAM = """
import sys
sys.path.insert(0, sys.argv[1])
import treepo, treepo_server
from importlib.metadata import distribution, entry_points
assert treepo.__file__.startswith(sys.argv[1]), treepo.__file__
assert treepo_server.__file__.startswith(sys.argv[1]), treepo_server.__file__
(plugin,) = [e for e in distribution("treepo").entry_points if e.group == "vllm.endpoint_plugins"]
from treepo.cli import main
sys.exit(main(["--help"]))
"""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    done = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = folder.glob("treepo-*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_the_two_packages_and_nothing_generic(unpacked):
    names = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert names == {"treepo", "treepo_server"}
    assert (unpacked / "treepo_server" / "page" / "index.html").is_file()


def test_the_wheel_runs_by_itself(unpacked, tmp_path):
    command = [sys.executable, "-c", PROGRAM, str(unpacked)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "serve" in done.stdout
