"""The environment is made once, anew when what goes into it changed, and never left half made."""

import sys

import pytest

from tools import check_install, install
from tools.install import InstallError


@pytest.fixture
def steps(tmp_path, monkeypatch):
    """A project of its own whose steps only note that they ran; returns the notes."""
    ran = []
    venv = tmp_path / ".venv"
    files = {"LOCK": "cpu.lock", "WEIGHTS": "embedded.lock", "CLIENTS_LOCK": "clients.lock"}
    for name, file in {**files, "METADATA": "toml"}.items():
        (tmp_path / file).write_text(name)
        monkeypatch.setattr(install, name, tmp_path / file)
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "VENV", venv)
    for name, file in {"STAMP": "stamp.json", "MARK": "mark", "LOG": "log"}.items():
        monkeypatch.setattr(install, name, venv / file)
    monkeypatch.setattr(install, "PACKAGE_STEPS", {"torch": ["torch"], "locked": ["locked"]})
    monkeypatch.setattr(install, "CLIENT_STEPS", {"clients": ["clients"]})
    monkeypatch.setattr(install, "_step", lambda title, command: ran.append(title))
    monkeypatch.setattr(check_install, "after", lambda python: [])
    return ran


EVERYTHING = ["virtual environment", "torch", "locked", "clients", "this project"]
LATE = {"clients": ["clients", "this project"], "this project": ["this project"]}


def installed(steps):
    """What one run of the installer did."""
    steps.clear()
    install.install()
    return list(steps)


def test_a_second_run_does_nothing(steps):
    assert installed(steps) == EVERYTHING
    assert installed(steps) == []


@pytest.mark.parametrize("changed", ["LOCK", "WEIGHTS"])
def test_other_packages_mean_a_new_environment(steps, changed, capsys):
    installed(steps)
    assert capsys.readouterr().err == ""
    (install.VENV / "lib").mkdir()
    (install.VENV / "lib" / "stale.py").touch()
    getattr(install, changed).write_text("changed")
    assert installed(steps) == EVERYTHING
    assert capsys.readouterr().err.endswith("since this has changed: packages\n")
    assert not (install.VENV / "lib").exists()


@pytest.mark.parametrize(("part", "name"), [("python", "sys.version"), ("folder", "ROOT")])
def test_another_python_or_folder_means_a_new_environment(steps, monkeypatch, capsys, part, name):
    installed(steps)
    monkeypatch.setattr(f"tools.install.{name}", install.ROOT / "other")
    assert installed(steps) == EVERYTHING
    assert capsys.readouterr().err.endswith(f"since this has changed: {part}\n")


def test_other_metadata_means_the_project_alone_again(steps):
    installed(steps)
    install.METADATA.write_text("changed")
    assert installed(steps) == ["this project"]
    assert installed(steps) == []


def test_other_clients_leave_the_rest_as_it_is(steps):
    installed(steps)
    (install.VENV / "lib").mkdir()
    install.CLIENTS_LOCK.write_text("changed")
    assert installed(steps) == LATE["clients"]
    assert (install.VENV / "lib").exists()
    assert installed(steps) == []


@pytest.mark.parametrize("cut_at", EVERYTHING)
def test_an_interrupted_install_is_done_again(steps, monkeypatch, cut_at):
    def step(title, command):
        if title == cut_at:
            raise KeyboardInterrupt
        steps.append(title)

    with monkeypatch.context() as cut:
        cut.setattr(install, "_step", step)
        with pytest.raises(KeyboardInterrupt):
            install.install()
    assert installed(steps) == LATE.get(cut_at, EVERYTHING)
    assert installed(steps) == []


def test_an_environment_that_is_not_whole_is_not_stamped(steps, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr(check_install, "after", lambda python: ["torch does not import"])
        with pytest.raises(InstallError, match="torch does not import"):
            install.install()
    assert installed(steps) == ["this project"]


def test_somebody_elses_environment_is_not_touched(steps):
    install.VENV.mkdir()
    (install.VENV / "theirs").touch()
    with pytest.raises(InstallError, match="was not made by this script"):
        install.install()
    assert (install.VENV / "theirs").exists()


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(install, "ROOT", tmp_path)
    monkeypatch.setattr(install, "LOG", tmp_path / "log")
    return tmp_path / "log"


def test_a_step_that_fails_shows_the_end_of_its_log(log):
    command = [sys.executable, "-c", "print('no such package'); raise SystemExit(1)"]
    with pytest.raises(InstallError, match="no such package"):
        install._step("packages", command)


def test_a_step_that_works_is_one_short_line(log, capsys):
    install._step("packages", [sys.executable, "-c", "print('much' * 1000)"])
    (line,) = capsys.readouterr().err.splitlines()
    assert line.split() == ["set-up:", "packages", line.split()[2], "s"]


def test_a_machine_that_lacks_something_is_told_before_anything_is_made(steps, monkeypatch, capsys):
    monkeypatch.setattr(check_install, "before", lambda: ["libnuma.so.1 is missing"])
    assert install.main() == 1
    assert capsys.readouterr().err == "set-up: libnuma.so.1 is missing\n"
    assert not install.VENV.exists()
