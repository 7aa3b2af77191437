"""A checkpoint is whole or not there, whenever the process dies."""

from pathlib import Path

import pytest
import torch

from treepo.errors import CheckpointError, ConfigError
from treepo.train.checkpoint import (
    Checkpoints,
    make_folder,
    named_writing,
    read_run,
    replace_file,
    replace_folder,
)


def store(checkpoints, step):
    partial = checkpoints.begin(step)
    (partial / "weights").write_text(str(step))
    return checkpoints.commit(partial, {"step": step})


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_last_few_are_kept_and_the_newest_is_found(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.latest() is None
    for step in (999_998, 999_999, 1_000_000):
        latest = store(checkpoints, step)
    assert names(tmp_path) == ["step-1000000", "step-999999"]
    assert checkpoints.latest() == latest
    assert read_run(latest) == {"step": 1_000_000}


def test_what_was_begun_and_not_committed_is_no_checkpoint_and_is_removed(tmp_path):
    checkpoints = Checkpoints(tmp_path, keep=2)
    kept = store(checkpoints, 1)
    (checkpoints.begin(2) / "weights").write_text("half")
    assert checkpoints.latest() == kept
    checkpoints.tidy()
    assert names(tmp_path) == ["step-000001"]


def test_a_removal_that_is_cut_short_leaves_no_half_checkpoint(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path, keep=1)
    store(checkpoints, 1)

    def killed(folder):
        (folder / "weights").unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("treepo.train.checkpoint.shutil.rmtree", lambda *a, **k: None)
        partial = checkpoints.begin(2)
        patch.setattr("treepo.train.checkpoint.shutil.rmtree", killed)
        with pytest.raises(KeyboardInterrupt):
            checkpoints.commit(partial, {})
    assert checkpoints.latest() == tmp_path / "step-000002"
    checkpoints.tidy()
    assert names(tmp_path) == ["step-000002"]


def test_a_checkpoint_without_its_record_is_an_error_that_says_what_to_do(tmp_path):
    kept = store(Checkpoints(tmp_path, keep=1), 1)
    (kept / "run.json").write_text("{")
    with pytest.raises(CheckpointError, match="remove this folder to resume"):
        read_run(kept)


def test_files_and_folders_are_replaced_as_a_whole(tmp_path):
    target = tmp_path / "model"
    for text in ("old", "new"):
        replace_folder(target, lambda f, text=text: (f.mkdir(), (f / "x").write_text(text)))
        replace_file(tmp_path / "y", text)
    assert (target / "x").read_text() == (tmp_path / "y").read_text() == "new"
    assert names(tmp_path) == ["model", "y"]


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"`output_dir` '.*/file/run' cannot be written to"):
        make_folder(tmp_path / "file" / "run")
    make_folder(tmp_path / "run")
    assert names(tmp_path / "run") == []


@pytest.mark.parametrize(
    "write",
    [lambda full: full.write_text("weights"), lambda full: torch.save(torch.ones(9), full)],
    ids=["text", "tensors"],
)
def test_a_full_disk_says_what_is_left_and_what_to_do(tmp_path, write):
    message = r"step-000002 could not be written: .* make room"
    with pytest.raises(CheckpointError, match=message), named_writing(tmp_path / "step-000002"):
        write(Path("/dev/full"))


def test_what_fails_beside_the_writing_is_not_taken_for_a_full_disk(tmp_path):
    with pytest.raises(RuntimeError, match="NCCL"), named_writing(tmp_path):
        raise RuntimeError("NCCL error: another rank is gone")
