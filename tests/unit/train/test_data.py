"""Prompts come from JSON lines and data sets alike, and each once an epoch."""

import pytest

from tests.support.model_engine import letter_tokenizer
from treepo.errors import ConfigError
from treepo.train.data import draw, load


@pytest.fixture(scope="module")
def tokenizer():
    return letter_tokenizer()


def read(source, tokenizer, **options):
    return load(str(source), tokenizer, **{"name": None, "split": "train", "limit": None} | options)


def test_a_line_gives_a_prompt_its_tokens_and_the_rewards_columns(tmp_path, tokenizer):
    file = tmp_path / "p.jsonl"
    file.write_text('{"prompt": "1+1=", "answer": "2"}\n{"prompt_token_ids": [3, 4], "id": 7}\n')
    first, second = read(file, tokenizer)
    assert (first.prompt, first.columns) == ("1+1=", {"answer": "2"})
    assert tokenizer.decode(first.token_ids) == "1+1="
    assert (second.prompt, second.token_ids, second.columns) == ("34", (3, 4), {"id": 7})
    assert read(file, tokenizer, limit=1) == [first]


def test_a_data_set_gives_what_a_file_gives(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"prompt": "1+1=", "answer": "2"}\n')
    [example] = read(folder, tokenizer)
    assert (example.prompt, example.columns) == ("1+1=", {"answer": "2"})
    with pytest.raises(ConfigError, match=r"split 'nope'.*name a JSONL file, or a data set"):
        read(folder, tokenizer, split="nope")


def test_a_data_set_that_was_saved_to_disk_is_read_as_it_was(tmp_path, tokenizer):
    import datasets

    rows = datasets.Dataset.from_list([{"prompt": "1+1=", "answer": "2"}])
    rows.save_to_disk(tmp_path / "one")
    datasets.DatasetDict({"hard": rows}).save_to_disk(tmp_path / "several")
    [one] = read(tmp_path / "one", tokenizer)
    [other] = read(tmp_path / "several", tokenizer, split="hard")
    assert (one.prompt, one.columns) == (other.prompt, other.columns) == ("1+1=", {"answer": "2"})
    with pytest.raises(ConfigError, match=r"no such split, only 'hard'"):
        read(tmp_path / "several", tokenizer)
    rows.select([]).save_to_disk(tmp_path / "none")
    with pytest.raises(ConfigError, match=r"no prompts; name another split"):
        read(tmp_path / "none", tokenizer)


def test_an_empty_file_is_an_error_that_shows_a_line(tmp_path, tokenizer):
    (tmp_path / "p.jsonl").touch()
    with pytest.raises(ConfigError, match=r"no prompts; write lines like"):
        read(tmp_path / "p.jsonl", tokenizer)
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "q.jsonl", tokenizer)


def test_every_example_is_drawn_once_an_epoch_in_another_order():
    epochs = [[draw(50, 3, 50 * epoch + at) for at in range(50)] for epoch in range(2)]
    assert [sorted(epoch) for epoch in epochs] == [list(range(50))] * 2
    assert epochs[0] != epochs[1]
    assert epochs[0] != [draw(50, 4, at) for at in range(50)]
