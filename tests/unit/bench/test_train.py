"""`bench.train` measures the trainer's own update, on two kinds of rows with one gradient."""

from pathlib import Path

import pytest
from torch import nn

from bench.train import SHAPES, Update
from tests.support.tiny_chat import build
from treepo.train.config import OptimizerConfig
from treepo.train.learner import make_optimizer


@pytest.fixture(scope="module")
def update(tmp_path_factory: pytest.TempPathFactory) -> Update:
    folder: Path = build(tmp_path_factory.mktemp("model"))
    return Update(str(folder), seed=5)


def test_the_optimizer_is_the_trainers(update: Update) -> None:
    trainers = make_optimizer(nn.Linear(1, 1), OptimizerConfig())
    assert type(update.optimizer) is type(trainers)
    assert update.optimizer.defaults == trainers.defaults


@pytest.mark.parametrize("shape", SHAPES)
def test_packed_and_single_rows_have_the_same_gradient(update: Update, shape: str) -> None:
    assert update.compare(shape)["gradient_difference"] < 1e-4
