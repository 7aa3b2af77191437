"""`python -m tools.image`: the CPU image made and started by hand, where no container engine is.

The steps are read from the Dockerfile and executed one by one in a fresh root, each stage in a
folder of its own; Debian of the same release with its own Python stands in for the Python image.
Then the entry point runs in a network of its own, as the image's user, with the embedded model as
a volume: the health check has to pass and one request with a `tree` has to be answered. It needs
root, Debian's debootstrap, the environment of `make setup`, 15 GB and some minutes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from tools import dockerfile
from tools.dockerfile import Instruction, Stage, command, filled, pairs
from treepo.local.embedded import prepare

ROOT = Path(__file__).resolve().parent.parent
RELEASE = "bookworm"
PACKAGES = "python3,python3-venv,python3-pip,ca-certificates"
# What the registries of this machine need to be reached is the machine's affair, not the image's.
BORROWED = ("/etc/resolv.conf", "/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
PASSED_ON = ("PIP_*", "SSL_CERT_*", "*_proxy", "*_PROXY")
WEIGHTS = ("*.safetensors", "*.gguf", "pytorch_model*.bin")
LEAST_BYTES = 10_000_000  # libraries hold small matrices in such files too
ASK = """
import json, urllib.request
def post(path, body):
    request = urllib.request.Request("http://127.0.0.1:8000" + path, json.dumps(body).encode(),
                                     {"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=300))
answer = post("/v1/chat/completions", {
    "model": "MODEL", "messages": [{"role": "user", "content": "What is 17 + 28?"}],
    "max_tokens": 32, "tree": {"width": 4}})
tree = answer["tree"]
assert len(tree["trajectories"]) == 4, tree
print("image: a tree of 4:", tree["finish"], tree["stats"]["generated_tokens"], "tokens, answer",
      tree["answer"])
"""


@dataclass
class Container:
    """One stage while its instructions are executed.

    Attributes:
        root: Its file system.
        binds: Folders of this machine that it sees.
    """

    root: Path
    binds: Sequence[str]
    variables: dict[str, str] = field(default_factory=dict)
    workdir: str = "/"
    user: str = "root"
    entrypoint: Sequence[str] = ()
    healthcheck: Sequence[str] = ()

    def apply(self, instruction: Instruction, stages: Mapping[str, Path]) -> None:
        """Executes one instruction."""
        words = instruction.words
        match instruction.name:
            case "RUN":
                run(inside(self, ["/bin/sh", "-c", words]))
            case "COPY":
                self.copy(words, stages)
            case "ARG":
                self.variables |= pairs(words)
            case "ENV":
                path = {"PATH": self.variables.get("PATH", os.defpath)}
                self.variables |= pairs(filled(words, path))
            case "WORKDIR":
                self.workdir = words
                self.within(words).mkdir(parents=True, exist_ok=True)
            case "USER":
                self.user = words
            case "ENTRYPOINT":
                self.entrypoint = command(words)
            case "HEALTHCHECK":
                self.healthcheck = command(words)
            case _:  # EXPOSE and VOLUME are promises to whoever runs it
                pass

    def copy(self, words: str, stages: Mapping[str, Path]) -> None:
        """COPY from this repository, or from a stage before."""
        *sources, target = words.split()
        base = ROOT
        if sources[0].startswith("--from="):
            base = stages[sources.pop(0).removeprefix("--from=")]
        for source in sources:
            origin = base / source.lstrip("/")
            place = self.within(target)
            if origin.is_dir():
                shutil.copytree(origin, place, symlinks=True, dirs_exist_ok=True)
            else:
                place = place / origin.name if target.endswith("/") else place
                shutil.copy2(origin, place)

    def within(self, path: str) -> Path:
        """Where a path of the container is on this machine."""
        return self.root / os.path.normpath(os.path.join(self.workdir, path)).lstrip("/")


def inside(container: Container, words: Sequence[str]) -> str:
    """A line of shell that executes `words` in the container, as its user and in its folder."""
    root = shlex.quote(str(container.root))
    mounts = [f"mount -t proc proc {root}/proc"]
    mounts += [f"mount --rbind /{name} {root}/{name}" for name in ("dev", "sys")]
    for path in container.binds:
        place = container.root / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        if Path(path).is_dir():
            place.mkdir(exist_ok=True)
        else:
            place.touch()
        mounts.append(f"mount --bind {shlex.quote(path)} {shlex.quote(str(place))}")
    return " && ".join([*mounts, f"exec {entered(container, words)}"])


def entered(container: Container, words: Sequence[str]) -> str:
    """The change of root alone, for a place where everything is mounted."""
    passed = {
        name: value
        for name, value in os.environ.items()
        if any(fnmatch(name, pattern) for pattern in PASSED_ON)
    }
    home = "/root" if container.user == "root" else "/tmp"  # noqa: S108
    for line in (container.root / "etc/passwd").read_text().splitlines():
        name, _, uid, _, _, folder, _ = line.split(":")
        if container.user in (name, uid):
            home = folder
    path = {"HOME": home, "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
    variables = {**path, **passed, **container.variables}
    settings = [f"{name}={value}" for name, value in variables.items()]
    user = [] if container.user == "root" else [f"--userspec={container.user}:{container.user}"]
    there = f"cd {shlex.quote(container.workdir)} && exec {shlex.join(words)}"
    change = ["chroot", *user, str(container.root), "env", "-i", *settings, "/bin/sh", "-c", there]
    return shlex.join(change)


def run(script: str, *, is_alone: bool = False) -> None:
    """Runs a script among mounts and processes of its own; `is_alone` has no network either.

    Raises:
        CalledProcessError: It failed.
    """
    spaces = ["--mount", "--pid", "--fork", "--kill-child", *(["--net"] if is_alone else [])]
    subprocess.run(["unshare", *spaces, "sh", "-c", script], check=True)  # noqa: S603, S607


def build(folder: Path, target: str, binds: Sequence[str]) -> Container:
    """The stages that the target needs, executed in their order; the last one is returned."""
    stages = {s.name: s for s in dockerfile.read((ROOT / "Dockerfile").read_text())}
    base = folder / "base"
    if not base.exists():
        run(
            f"debootstrap --variant=minbase --include={PACKAGES} {RELEASE} {shlex.quote(str(base))}"
        )
    roots: dict[str, Path] = {}
    container = Container(base, binds)
    for stage in needed(stages, target):
        origin = roots.get(stage.base, base)
        roots[stage.name] = folder / stage.name
        run(f"rm -rf {folder / stage.name} && cp -a {origin} {folder / stage.name}")
        container = Container(roots[stage.name], binds)
        for instruction in stage.instructions:
            print(f"image: {stage.name}: {instruction.name} {instruction.words}", flush=True)
            container.apply(instruction, roots)
    return container


def needed(stages: Mapping[str, Stage], target: str) -> list[Stage]:
    """The target and the stages it is made of, in the order of the file."""
    wanted = {target}
    for stage in reversed(list(stages.values())):
        if stage.name not in wanted:
            continue
        wanted.add(stage.base)
        for instruction in stage.instructions:
            if instruction.name == "COPY" and instruction.words.startswith("--from="):
                wanted.add(instruction.words.split()[0].removeprefix("--from="))
    return [stage for stage in stages.values() if stage.name in wanted]


def start(container: Container, model: Path) -> None:
    """Starts the entry point with a model, waits for the health check, and asks for one tree."""
    where = f"/models/{model.name}"
    volume = shlex.quote(str(container.within(where)))
    owner = f"{container.user}:{container.user}"
    run(f"rm -rf {volume} && cp -r {shlex.quote(str(model))} {volume} && chown -R {owner} {volume}")
    serve = [*container.entrypoint, where, "--served-model-name", model.name]
    ask = ["python3", "-c", ASK.replace("MODEL", model.name)]
    quietly = f"{entered(container, container.healthcheck)} 2>/dev/null"
    script = f"""
        set -e
        ip link set lo up
        ({inside(container, serve)}) & server=$!
        until {quietly}; do sleep 2; kill -0 $server; done
        echo "image: the health check passes"
        {entered(container, ask)}
        kill -TERM $server
        code=0; wait $server || code=$?
        echo "image: the server ended with $code"
        exit $code
    """
    run(script, is_alone=True)


def weights_in(root: Path) -> list[Path]:
    """Files of a root that look like a model's weights."""
    found = (path for pattern in WEIGHTS for path in root.rglob(pattern))
    return [path for path in found if path.is_file() and path.stat().st_size >= LEAST_BYTES]


def main() -> int:
    """Builds, looks for weights, starts; returns 0, or raises what failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.image", description=__doc__)
    parser.add_argument("folder", type=Path, help="where the roots are made; kept afterwards")
    parser.add_argument("--bind", action="append", default=[], help="a folder that steps may read")
    arguments = parser.parse_args()
    if os.geteuid() != 0 or not shutil.which("debootstrap"):
        parser.error("it needs root, and debootstrap: apt-get install debootstrap")
    binds = [path for path in (*BORROWED, *arguments.bind) if Path(path).exists()]
    arguments.folder.mkdir(parents=True, exist_ok=True)
    container = build(arguments.folder.resolve(), "cpu", binds)
    found = weights_in(container.root)
    if found:
        raise AssertionError(f"weights in the image: {found}")
    start(container, prepare())
    return 0


if __name__ == "__main__":
    sys.exit(main())
