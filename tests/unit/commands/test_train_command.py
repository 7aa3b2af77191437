"""`treepo train` says what is wrong before it starts anything."""

import pytest

from treepo.cli import main


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(f"output_dir: {tmp_path / 'run'}\ndata: {{train: {tmp_path / 'x.jsonl'}}}\n")
    return path


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.rl=1e-5"], "did you mean `optimizer.lr`?"),
        (["steps=none"], "`steps` is 'none'"),
        (["whatever"], "write key=value"),
    ],
)
def test_a_wrong_word_ends_with_code_2_and_a_remedy(file, capsys, words, message):
    assert main(["train", str(file), *words]) == 2
    out = capsys.readouterr()
    assert out.out == ""
    assert out.err.startswith("treepo: error: ")
    assert message in out.err


def test_examples_are_valid_and_their_prompts_are_there():
    from pathlib import Path

    from treepo.rollout.prompts import read_prompts
    from treepo.train.config_file import load

    root = Path(__file__).parents[3]
    for path in (root / "examples").glob("*.yaml"):
        config = load(path)
        train, held_out = read_prompts(config.data.train), read_prompts(config.data.eval)
        asked = [{p.content.splitlines()[-1] for p in part} for part in (train, held_out)]
        assert not asked[0] & asked[1], "held-out prompts must not be learnt"
