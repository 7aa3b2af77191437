"""Every code block of the pages is run, or read by what would read it; no kind goes unlooked at.

Python runs as it stands, against a real server where it speaks to one. Commands are read by their
own parsers (`programs.py`), since most need a GPU, a cluster or an hour; those in `RUN` are run.
A further language is a function here and a line in `LANGUAGES`.
"""

import json
import os
import re
import subprocess
import sys

import pytest
import yaml

from tests.docs import programs
from tests.docs.pages import ALL, ROOT, SHELLS, blocks, commands
from treepo.config import parse_tree_config

URL = "http://127.0.0.1:8000"
LIMIT_S = 120
NAMES_WIDTH = 24
RUN = {("python", "-m", "treepo_server.viewer")}


@pytest.fixture
def files(tmp_path):
    """`files(page)`: a folder with the files that a page shows."""

    def make(page):
        for block in blocks(page):
            if block.file_name:
                (tmp_path / block.file_name).write_text(block.text)
        return tmp_path

    return make


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "python"], ids=str)
def test_python_runs_against_a_server_as_it_stands(block, request):
    text = block.text
    if URL in text:
        text = text.replace(URL, request.getfixturevalue("server").url)
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "clients" / "python")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "it shows nothing"


@pytest.fixture(scope="module")
def refusal():
    with programs.serve_parser() as parse:
        yield parse


@pytest.mark.parametrize("block", [b for b in ALL if b.language in SHELLS], ids=str)
def test_commands_are_understood_by_what_would_run_them(block, files, refusal):
    found = commands(block)
    assert found
    reader = programs.Reader(files(block.page), refusal)
    for command in found:
        programs.check(command, reader)
        if command.words in RUN:
            run(command, reader.files)


def run(command, folder):
    """Run a command of this project where nothing is needed for it."""
    words = [sys.executable, *command.words[1:]]
    done = subprocess.run(words, capture_output=True, timeout=LIMIT_S, cwd=folder, check=True)
    (folder / command.output).write_bytes(done.stdout)
    assert done.stdout


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "yaml"], ids=str)
def test_yaml_is_read_by_what_would_read_it(block, files):
    content = yaml.safe_load(block.text)
    if "output_dir" in content:
        from treepo.train.config_file import load

        load(files(block.page) / block.file_name)
    elif "distributed_type" in content:
        from accelerate.commands.config.config_args import load_config_from_file

        config = load_config_from_file(str(files(block.page) / block.file_name))
        assert config.num_processes == content["num_processes"]
    else:
        from treepo_server.observe import metrics

        names = {metric.describe()[0].name for metric in (metrics.WAITING, metrics.LIVE)}
        assert {rule["name"]["as"] for rule in content["rules"]} <= names
        for rule in content["rules"]:
            assert rule["seriesQuery"].startswith(f"{rule['name']['as']}{{")


@pytest.mark.parametrize("block", [b for b in ALL if b.language == "json"], ids=str)
def test_json_is_a_tree_object(block):
    parse_tree_config(json.loads(block.text))


@pytest.mark.parametrize("block", [b for b in ALL if b.language == ""], ids=str)
def test_a_map_of_the_house_names_rooms_that_are_there(block):
    room = last = ROOT
    for line in block.text.splitlines():
        left = line[:NAMES_WIDTH]
        indent = len(left) - len(left.lstrip())
        inside = {0: ROOT, 2: room}.get(indent, last.parent)
        for name in left.split():
            last = inside / name
            assert last.exists() or last.with_suffix(".py").exists(), line
        if indent == 0:
            room = ROOT / left.split()[0]
    assert room != ROOT


def test_the_demo_prints_what_the_readme_shows():
    (shown,) = (b for b in ALL if b.language == "text")
    command = [sys.executable, "-m", "tools.demo"]
    done = subprocess.run(
        command,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=5 * LIMIT_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert outline(shown.text) == outline(done.stdout)


LABELS = (
    *("demo: asking .*", "prompt$", "answer(?= )", "cost(?= )", "this tree"),
    *(r"\d separate samples of these lengths", "the winning.*"),
)


def outline(drawn):
    """The lines of a drawn tree that are the same whatever the model says."""
    return re.findall(rf"^(?:{'|'.join(LABELS)})", drawn, re.MULTILINE)


def test_no_block_is_of_a_kind_that_nobody_looks_at():
    known = {"python", *SHELLS, "yaml", "json", "text", ""}
    assert {b.language for b in ALL} <= known
