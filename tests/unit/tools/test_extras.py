"""What tests use beside Python is installed where that is easy, and missed quietly elsewhere."""

import sys

import pytest

from tools import extras


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """A machine with those programs, as that user; returns the commands that are run on it."""
    ran = []
    monkeypatch.setattr(extras, "JAVASCRIPT", (tmp_path / "one", tmp_path / "two"))
    monkeypatch.setattr(extras, "HELM", tmp_path / "helm")

    def make(*programs, user=0, works=True, has_libraries=True):
        monkeypatch.setattr(extras, "has_library", lambda name: has_libraries)
        monkeypatch.setattr(extras.shutil, "which", lambda name: name if name in programs else None)
        monkeypatch.setattr(extras.os, "geteuid", lambda: user)
        reason = "" if works else "E: no such host"
        monkeypatch.setattr(extras, "_failure", lambda command: ran.append(command) or reason)
        return ran

    return make


def test_what_is_there_is_not_installed_again(machine, tmp_path):
    for folder in ("one/node_modules", "two/node_modules", "helm"):
        (tmp_path / folder).mkdir(parents=True)
    ran = machine("chromium", "apt-get", "npm")
    assert extras.main() == 0
    assert ran == []


def test_root_on_debian_gets_all(machine):
    ran = machine("apt-get", "npm")
    assert extras.main() == 0
    assert [command[:2] for command in ran] == [
        ["apt-get", "update"],
        ["apt-get", "install"],
        ["npm", "install"],
        ["npm", "install"],
        [sys.executable, "-m"],
    ]


def test_a_browser_without_the_library_of_its_driver_is_not_enough(machine):
    ran = machine("chromium", "apt-get", has_libraries=False)
    assert extras.main() == 0
    assert "libatomic1" in ran[1]


@pytest.mark.parametrize(("programs", "user"), [((), 0), (("apt-get",), 1000)])
def test_no_program_is_asked_of_other_machines(machine, programs, user):
    ran = machine(*programs, user=user)
    assert extras.main() == 0
    assert [command[0] for command in ran] == [sys.executable]


def test_a_failure_is_said_and_stops_nothing(machine, capsys):
    ran = machine("apt-get", "npm", works=False)
    assert extras.main() == 0
    assert len(ran) == len(extras.EXTRAS)
    assert "no chromium, so its tests are skipped: E: no such host" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("print('out'); sys.exit('E: no such host\\n')", "E: no such host"),
        ("sys.exit(3)", "exit code 3"),
        ("print('all is well')", ""),
    ],
)
def test_the_reason_is_the_last_line_of_what_failed(program, reason):
    assert extras._failure([sys.executable, "-c", f"import sys; {program}"]) == reason


def test_a_program_that_is_not_there_is_the_reason():
    assert "no-such-program" in extras._failure(["no-such-program"])
