"""A configuration is right, or an error names the key, the value and what to write."""

import subprocess
import sys

import pytest

from treepo.errors import ConfigError
from treepo.train.config import TREE_DEFAULTS
from treepo.train.config_file import build, dump, load

FILE = """
output_dir: out
data: {train: train.jsonl}
optimizer: {lr: 1e-5}
tree: {width: 4}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(FILE)
    return path


def test_words_go_before_the_file_and_the_file_before_defaults(file):
    config = load(file, ["optimizer.warmup_steps=3", "tree.width=6", "steps=7", "lora.r=4"])
    assert (config.optimizer.lr, config.optimizer.warmup_steps) == (1e-5, 3)
    assert (config.tree.width, config.steps, config.prompts_per_step) == (6, 7, 32)
    assert config.lora is not None
    assert config.lora.r == 4


def test_what_is_left_out_of_a_tree_is_what_training_wants(file):
    assert load(file).tree == TREE_DEFAULTS.model_copy(update={"width": 4})


def test_what_is_dumped_is_what_was_meant(file):
    config = load(file, ["lora.r=4", "sampling.stop=['\\n']"])
    file.write_text(dump(config))
    assert load(file) == config


def test_prompts_may_stand_beside_the_file(file, tmp_path, monkeypatch):
    (tmp_path / "train.jsonl").touch()
    monkeypatch.chdir(tmp_path.parent)
    assert load(file).data.train == str(tmp_path / "train.jsonl")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["optimizer.learning=1"], r"`optimizer\.learning`: no such key; did you mean `optimizer"),
        (["loss.clip_ratio_hig=1"], r"did you mean `loss\.clip_ratio_high`"),
        (["advantages.options.root_gruop=1"], r"did you mean `advantages\.options\.root_group`"),
        (["tree.widht=3"], r"did you mean `tree\.width`"),
        (["tree.root_branching=[3,2]"], r"`tree\.root_branching` is \[3, 2\]: .*smaller first"),
        (["tree.root_branching=-1"], r"`tree\.root_branching` is -1: .*from 1 to 1024"),
        (["lora.rank=3"], r"did you mean `lora\.r`"),
        (["stpes=3"], "did you mean `steps`"),
        (["steps=0"], r"`steps` is 0: .*greater than or equal to 1"),
        (["advantages.estimator=ppo"], r"`advantages\.estimator` is 'ppo': .*'treepo'"),
        (["steps"], r"'steps' is no setting; write key=value"),
        (["steps.x=1", "steps.x.y=1"], "has no keys"),
        (["trees=x.jsonl"], r"one of `data\.train` .* and `trees`"),
        (["loss.dual_clip=0.5"], r"`loss\.dual_clip` is 0\.5: .*greater than 1"),
        (["rewards.num_workers=0"], r"`rewards\.num_workers` is 0: "),
        (["rewards.functions=exact_match"], r"write rewards\.functions=\[exact_match\]"),
        (["lora=8"], r"`lora` is 8: a section is wanted; write for example lora\.r="),
        (["lora.target_modules=8"], r"`lora\.target_modules` is 8"),
        (["eval.pass_at=9"], r"`eval\.pass_at` is more"),
    ],
)
def test_an_error_names_the_key_and_the_remedy(file, words, message):
    with pytest.raises(ConfigError, match=message):
        load(file, words)


def test_a_configuration_is_read_without_torch():
    code = "import sys, treepo.train.config_file; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_file_that_is_missing_or_no_mapping_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        load(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="not `key: value` lines"):
        load(tmp_path / "list.yaml")
    with pytest.raises(ConfigError, match=r"`output_dir` is missing"):
        build({"data": {"train": "x"}})
