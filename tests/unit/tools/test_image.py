"""The Dockerfile is read as Docker reads it, and a target's stages are those it is made of."""

import pytest

from tools import dockerfile, image
from tools.dockerfile import DockerfileError, Instruction

TEXT = """\
# a comment
ARG PYTHON=python:3.11
FROM ${PYTHON} AS wheel
COPY one two ./
FROM other:1 AS gpu
FROM ${PYTHON} AS packages
ARG TORCH=torch==2 EMPTY
RUN first \\
    # within a command
    && second
COPY --from=wheel /wheels /wheels
FROM ${PYTHON} AS cpu
COPY --from=packages /opt /opt
ENTRYPOINT ["treepo", "serve"]
HEALTHCHECK --interval=30s \\
    CMD ["python3", "-c", "pass"]
"""


@pytest.fixture
def stages():
    return {stage.name: stage for stage in dockerfile.read(TEXT)}


def test_stages_have_their_base_and_their_instructions_in_order(stages):
    assert {name: stage.base for name, stage in stages.items()} == {
        "wheel": "python:3.11",
        "gpu": "other:1",
        "packages": "python:3.11",
        "cpu": "python:3.11",
    }
    assert stages["packages"].instructions == (
        Instruction("ARG", "TORCH=torch==2 EMPTY"),
        Instruction("RUN", "first && second"),
        Instruction("COPY", "--from=wheel /wheels /wheels"),
    )
    assert dockerfile.pairs("TORCH=torch==2 EMPTY") == {"TORCH": "torch==2"}


def test_entry_point_and_health_check_are_words(stages):
    entry, health = stages["cpu"].instructions[1:]
    assert dockerfile.command(entry.words) == ["treepo", "serve"]
    assert dockerfile.command(health.words) == ["python3", "-c", "pass"]


def test_only_what_a_target_is_made_of_is_built(stages):
    assert [stage.name for stage in image.needed(stages, "cpu")] == ["wheel", "packages", "cpu"]
    assert [stage.name for stage in image.needed(stages, "gpu")] == ["gpu"]


def test_an_instruction_that_is_not_known_is_refused():
    with pytest.raises(DockerfileError, match="SHELL"):
        dockerfile.read("FROM a AS b\nSHELL [1]\n")


def test_weights_are_found_and_small_matrices_are_not(tmp_path):
    (tmp_path / "small.safetensors").write_bytes(b"x")
    with (tmp_path / "model.gguf").open("wb") as file:
        file.truncate(image.LEAST_BYTES)
    assert image.weights_in(tmp_path) == [tmp_path / "model.gguf"]
