"""Flags of `treepo serve` become variables, which every API process reads."""

import os
from argparse import ArgumentParser

import pytest

from treepo.errors import ConfigError
from treepo_server.launch.options import FLAGS, add_flags, apply_flags, variable
from treepo_server.settings.capacity import Capacity
from treepo_server.settings.limits import Limits

VALUES = {"tree-share": "0.5", "tree-kv-full": "0.8"}


@pytest.fixture
def parsed(monkeypatch):
    """Applies flags to an environment of their own; returns what is left of the arguments."""
    environment = {}
    monkeypatch.setattr(os, "environ", environment)

    def parse(*words, processes=None):
        parser = ArgumentParser()
        add_flags(parser)
        args = parser.parse_args(words)
        args.api_server_count, args.data_parallel_size, args.shutdown_timeout = processes, 1, 0
        apply_flags(args)
        return args, environment

    return parse


def test_every_flag_is_a_limit_or_a_capacity(parsed):
    said = {flag: VALUES.get(flag, "3") for flag in FLAGS}
    words = [f"--{flag}={value}" for flag, value in said.items()]
    args, environment = parsed(*words)
    assert environment.items() >= {variable(f): value for f, value in said.items()}.items()
    assert set(vars(args)) == {"api_server_count", "data_parallel_size", "shutdown_timeout"}
    assert Limits.from_env(environment) == Limits(3, 3, 3)
    assert Capacity.from_env(environment) == Capacity(3, 0.5, 3, 0.8, 3.0)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tree-share", "2"], "TREEPO_TREE_SHARE"),
        (["--tree-max-width", "0"], "TREEPO_MAX_WIDTH"),
        (["--tree-alias", 'x={"widht": 8}'], "tree.widht"),
        (["--tree-alias", 'x={"width": 8}', "--tree-max-width", "4"], "tree.width"),
    ],
)
def test_a_wrong_flag_is_refused_before_anything_starts(parsed, words, said):
    with pytest.raises(ConfigError, match=said):
        parsed(*words)


@pytest.mark.parametrize(("processes", "timeout"), [(None, 0), (1, 0), (2, 25)])
def test_only_a_supervisor_of_several_processes_waits_for_them(parsed, processes, timeout):
    args, _ = parsed("--tree-drain-s", "20", processes=processes)
    assert args.shutdown_timeout == timeout
