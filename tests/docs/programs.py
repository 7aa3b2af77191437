"""Commands of the pages, checked without being run: by the parsers that would read them.

What a check may take as given is the reader's own: names in capitals, and files such as
`prompts.jsonl`. A program that is not in `CHECKS` is an error, so that no command goes unread. A
further program is a function here and a line there.
"""

from __future__ import annotations

import importlib.util
import json
import pkgutil
import re
import subprocess
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path

import yaml
from packaging.requirements import Requirement

from tests.docs.pages import ROOT, Command
from tools import dockerfile
from treepo.cli import COMMANDS

CHART = ROOT / "deploy" / "helm" / "treepo"
STAGES = {stage.name: stage for stage in dockerfile.read((ROOT / "Dockerfile").read_text())}
PARSE_SERVE = """
import json, sys
from treepo_server.launch import vllm_serve
for line in sys.stdin:
    try:
        vllm_serve._parsed(json.loads(line))
    except BaseException as error:
        print(json.dumps(repr(error)), flush=True)
    else:
        print(json.dumps(""), flush=True)
"""


@dataclass(frozen=True, slots=True)
class Reader:
    """Where commands are read.

    Attributes:
        files: A folder with the files that the page shows.
        refusal: What `treepo serve` says against arguments; empty where it takes them.
    """

    files: Path
    refusal: Callable[[Sequence[str]], str]


@contextmanager
def serve_parser() -> Iterator[Callable[[Sequence[str]], str]]:
    """The parser of `treepo serve` in one process, since vLLM takes long to import."""
    command = [sys.executable, "-P", "-c", PARSE_SERVE]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, text=True, bufsize=1, **pipes) as process:

        def refusal(words: Sequence[str]) -> str:
            process.stdin.write(json.dumps(list(words)) + "\n")
            # vLLM greets on stdout; an answer is a JSON text.
            answers = (line for line in process.stdout if line.startswith('"'))
            return json.loads(next(answers))

        yield refusal
        process.stdin.close()


def check(command: Command, reader: Reader) -> None:
    """Fails where the command could not do what it says."""
    program, *words = command.words
    _variables(command)
    CHECKS[program](words, reader)


def _variables(command: Command) -> None:
    for name, value in command.variables.items():
        if name == "VLLM_PLUGINS":
            assert value in entry_points(group="vllm.endpoint_plugins").names
        elif name.startswith("VLLM_"):
            from vllm import envs

            assert name in envs.environment_variables, name
        elif name == "MODEL":
            assert "${MODEL" in (ROOT / "deploy" / "compose.yaml").read_text()
        else:
            assert name in ("CUDA_VISIBLE_DEVICES",), f"is {name} a variable of anything?"


def make(words: Sequence[str], reader: Reader) -> None:
    verbs = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(words) <= set(verbs)


def treepo(words: Sequence[str], reader: Reader) -> None:
    name, *rest = words
    if name == "serve":
        assert reader.refusal(rest) == ""
        return
    parser = ArgumentParser(prog="treepo", exit_on_error=False)
    module = import_module(COMMANDS[name].module)
    module.add_arguments(parser)
    args = parser.parse_args(rest)
    if name == "train":
        from treepo.train.config_file import load

        trees = [f"trees={args.trees}", "data.train=null"] if args.trees else []
        place = reader.files if (reader.files / args.config).exists() else ROOT
        load(place / args.config, [*args.settings, *trees])
    else:
        settings = {"sample": "sample_config", "bench": "bench_config"}[name]
        import_module(f"treepo.commands.{settings}").parse(args)


def vllm(words: Sequence[str], reader: Reader) -> None:
    name, *rest = words
    assert name == "serve"
    assert not any(word.startswith("--tree") for word in rest), "that flag is `treepo serve`'s"
    processors = rest[rest.index("--logits-processors") + 1]
    assert pkgutil.resolve_name(processors)
    assert reader.refusal(rest) == ""


def pip(words: Sequence[str], reader: Reader) -> None:
    verb, *packages = words
    assert verb == "install"
    extras = set(_project()["optional-dependencies"])
    for package in packages:
        if package.startswith("."):
            folder, _, named = package.partition("[")
            assert (ROOT / folder / "pyproject.toml").exists()
            assert set(named.removesuffix("]").split(",")) - {""} <= extras
        else:
            assert Requirement(package).name != "treepo", "it is in no package index"


def _project() -> dict[str, dict[str, object]]:
    import tomllib

    project: dict[str, dict[str, object]] = tomllib.loads((ROOT / "pyproject.toml").read_text())[
        "project"
    ]
    return project


def docker(words: Sequence[str], reader: Reader) -> None:
    parser = ArgumentParser(prog="docker", exit_on_error=False)
    verbs = parser.add_subparsers(dest="verb", required=True)
    build, run, compose = (verbs.add_parser(name) for name in ("build", "run", "compose"))
    build.add_argument("--target", choices=STAGES, required=True)
    build.add_argument("-t", dest="tag")
    build.add_argument("context", choices=["."])
    for flag in ("--gpus", "--ipc", "-p", "-v"):
        run.add_argument(flag, required=True)
    run.add_argument("image")
    run.add_argument("arguments", nargs="*")
    compose.add_argument("--file", required=True)
    compose.add_argument("--profile", required=True)
    compose.add_argument("up", choices=["up"])
    compose.add_argument("--build", action="store_true")
    args = parser.parse_args(words)
    if args.verb == "run":
        _volume(args.v)
        assert reader.refusal(args.arguments) == ""
    if args.verb == "compose":
        services = yaml.safe_load((ROOT / args.file).read_text())["services"]
        assert any(args.profile in service["profiles"] for service in services.values())


def _volume(volume: str) -> None:
    place = volume.split(":")[1]
    assert any(i.name == "VOLUME" and i.words == place for i in STAGES["gpu"].instructions)


def helm(words: Sequence[str], reader: Reader) -> None:
    parser = ArgumentParser(prog="helm", exit_on_error=False)
    parser.add_argument("verb", choices=["install"])
    parser.add_argument("release")
    parser.add_argument("chart")
    parser.add_argument("--set", action="append", default=[])
    args = parser.parse_args(words)
    assert (ROOT / args.chart).samefile(CHART)
    for setting in args.set:
        at = yaml.safe_load((CHART / "values.yaml").read_text())
        for part in setting.split("=")[0].split("."):
            assert part in at, setting
            at = at[part]


def accelerate(words: Sequence[str], reader: Reader) -> None:
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    verb, *rest = words
    assert verb == "launch"
    args = launch_command_parser().parse_args(rest)
    load_config_from_file(str(reader.files / args.config_file))
    assert args.module
    assert args.training_script == "treepo.cli"
    treepo(args.training_script_args, reader)


def python(words: Sequence[str], reader: Reader) -> None:
    assert words[0] == "-m"
    assert importlib.util.find_spec(words[1]), words[1]


CHECKS: dict[str, Callable[[Sequence[str], Reader], None]] = {
    "accelerate": accelerate,
    "docker": docker,
    "helm": helm,
    "make": make,
    "pip": pip,
    "python": python,
    "treepo": treepo,
    "vllm": vllm,
}
