"""The command line finds its commands, and says what went wrong in one line."""

import sys
from types import SimpleNamespace

import pytest

from treepo import __version__, cli
from treepo.errors import ConfigError


@pytest.fixture
def plugged(monkeypatch):
    """Plugs a command in; returns what it was called with."""
    calls = []

    def plug(run, *, is_raw=False, add_arguments=None):
        module = SimpleNamespace(run=run, add_arguments=add_arguments)
        monkeypatch.setitem(sys.modules, "plugged_command", module)
        command = cli.Command("plugged_command", "a command", is_raw=is_raw)
        monkeypatch.setattr(cli, "COMMANDS", {"plugged": command})
        return calls

    return plug


def test_every_listed_command_can_be_imported_and_run():
    for command in cli.COMMANDS.values():
        module = __import__(command.module, fromlist=["run"])
        assert callable(module.run)
        assert command.is_raw or callable(module.add_arguments)


def test_help_lists_every_command(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert all(name in shown for name in cli.COMMANDS)


def test_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--version"])
    assert capsys.readouterr().out == f"treepo {__version__}\n"


def test_an_unknown_command_is_refused_with_the_known_ones(capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["srve"])
    assert end.value.code == 2
    assert "serve" in capsys.readouterr().err


def test_a_command_declares_its_arguments_and_gets_them_parsed(plugged):
    seen = []
    plugged(
        lambda args: seen.append(args.width) or 3,
        add_arguments=lambda parser: parser.add_argument("--width", type=int),
    )
    assert cli.main(["plugged", "--width", "4"]) == 3
    assert seen == [4]


def test_a_raw_command_gets_every_word_after_its_name(plugged):
    seen = []
    plugged(lambda words: seen.extend(words) or 0, is_raw=True)
    assert cli.main(["plugged", "--help", "model", "--any-flag=1"]) == 0
    assert seen == ["--help", "model", "--any-flag=1"]


def test_an_error_of_ours_is_one_line_and_code_2(plugged, capsys):
    def run(words):
        raise ConfigError("`x` is 3; allowed: 1 or 2. Send 1.")

    plugged(run, is_raw=True)
    assert cli.main(["plugged"]) == 2
    assert capsys.readouterr().err == "treepo: error: `x` is 3; allowed: 1 or 2. Send 1.\n"


def test_an_interrupt_is_quiet_and_code_130(plugged, capsys):
    def run(words):
        raise KeyboardInterrupt

    plugged(run, is_raw=True)
    assert cli.main(["plugged"]) == 130
    assert capsys.readouterr() == ("", "")
