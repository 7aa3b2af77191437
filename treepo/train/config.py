"""What `treepo train` can be told: one frozen configuration for a whole run.

It starts nothing, reads no file and loads no torch, so that a wrong key is said at once; how a YAML
file and `key=value` words become one of these stands in `config_file.py`. An option is a field of
the section it belongs to. Sections of the estimator and the rewards are those modules' own records.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from treepo.config import TreeConfig
from treepo.local.embedded import MODEL_NAME
from treepo.train.advantage import AdvantageConfig
from treepo.train.reward_pool import RewardConfig

Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Beta = Annotated[float, Field(ge=0, lt=1)]

TREE_DEFAULTS = TreeConfig(width=8, until="complete", prune="none", fallback="none", answer="none")
"""How trees grow unless `tree:` says otherwise: nothing that biases an estimate, no answers read
by the sampler, since rewards read them."""


class Section(BaseModel):
    """A part of the configuration; unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class DataConfig(Section):
    """Where prompts come from.

    Attributes:
        train: A JSONL file (`prompt` as text or chat; other columns go to the reward), or a name
            or folder for `datasets.load_dataset`.
        eval: The same for evaluation; None for none.
        name: Configuration of the data set, for `datasets` only.
        split: Split of `train`, for `datasets` only.
        eval_split: Split of `eval`, for `datasets` only.
        limit: Only the first so many training prompts.
        eval_limit: Only the first so many evaluation prompts.
    """

    train: str | None = None
    eval: str | None = None
    name: str | None = None
    split: str = "train"
    eval_split: str = "test"
    limit: Positive | None = None
    eval_limit: Positive | None = None


class SamplingConfig(Section):
    """How tokens are drawn; no nucleus and no top-k, whose log-probabilities are not the policy's.

    Attributes:
        max_tokens: Most generated tokens of a trajectory.
        temperature: Of the sampling; the trainer divides its logits by it too.
        stop: Strings that end a trajectory; they are not part of its text.
        concurrency: Trees at one time, on each host where there are hosts; None for as many as fill
            the engine, or 16 on a host.
    """

    max_tokens: Positive = 1024
    temperature: Annotated[float, Field(gt=0)] = 1.0
    stop: tuple[str, ...] = ()
    concurrency: Positive | None = None


class LossConfig(Section):
    """PPO's clip as DAPO sets it, dual clip as TreePO does, and two options.

    Attributes:
        clip_ratio_low: Below 1 - this a negative advantage pushes no further.
        clip_ratio_high: Above 1 + this a positive advantage pushes no further.
        dual_clip: Largest ratio a negative advantage is multiplied by; None for none.
        anchor: What the clipped ratio is to: the `sampler`'s log-probabilities, or the `trainer`'s
            own before the first step on a batch, at the price of one more forward pass where there
            are several `update.mini_batches`.
        importance_cap: Largest correction pi_trainer / pi_sampler with `anchor: trainer` (TIS);
            None for no correction.
        kl_coef: Weight of the KL term to the model that the run began with, estimator k3, in nats;
            above 0 every process holds that model too.
    """

    clip_ratio_low: Annotated[float, Field(ge=0, le=1)] = 0.2
    clip_ratio_high: Annotated[float, Field(ge=0)] = 0.28
    dual_clip: Annotated[float, Field(gt=1)] | None = 10.0
    anchor: Literal["sampler", "trainer"] = "sampler"
    importance_cap: Annotated[float, Field(gt=0)] | None = 2.0
    kl_coef: Annotated[float, Field(ge=0)] = 0.0


class OptimizerConfig(Section):
    """AdamW with a linear warm-up and then a constant rate.

    Attributes:
        lr: Learning rate.
        betas: Of the moments.
        weight_decay: Decoupled.
        warmup_steps: Optimizer steps until the rate is `lr`.
        max_grad_norm: Gradients are scaled down to this norm.
    """

    lr: Annotated[float, Field(gt=0)] = 1e-6
    betas: tuple[Beta, Beta] = (0.9, 0.999)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    warmup_steps: Natural = 0
    max_grad_norm: Annotated[float, Field(gt=0)] = 1.0


class LoraConfig(Section):
    """Low-rank adapters instead of full fine-tuning; there is no dropout.

    Attributes:
        r: Rank.
        alpha: Scale; the update is multiplied by alpha / r.
        target_modules: Names of layers, or `all-linear`.
    """

    r: Positive = 16
    alpha: Positive = 32
    target_modules: str | tuple[str, ...] = "all-linear"


class UpdateConfig(Section):
    """How a batch of trees becomes optimizer steps.

    Attributes:
        mini_batches: Optimizer steps on one batch; each sees other prompts.
        row_tokens: Most tokens that go through the model at one time, shared ones counted once.
        chunk_tokens: Tokens whose logits exist at one time.
        checkpoint_activations: Compute activations again in the backward pass: less memory, a
            third more time.
        max_logprob_diff: The mean |log-probability difference| between sampler and trainer, in
            nats, above which the run is ended; None for no limit. Online runs only.
    """

    mini_batches: Positive = 1
    row_tokens: Positive = 8192
    chunk_tokens: Positive = 1024
    checkpoint_activations: bool = False
    max_logprob_diff: Annotated[float, Field(gt=0)] | None = 0.1


class EvalConfig(Section):
    """When and how the policy is evaluated: independent samples, not trees.

    Attributes:
        every: Steps between evaluations; None for before and after only.
        samples: Samples of each prompt.
        pass_at: The k of pass@k, at most `samples`; None for `samples`.
    """

    every: Positive | None = None
    samples: Positive = 4
    pass_at: Positive | None = None


class CheckpointConfig(Section):
    """When the run is stored.

    Attributes:
        every: Steps between checkpoints; None for none but the last.
        keep: How many are kept.
    """

    every: Positive | None = 50
    keep: Positive = 2


class LogConfig(Section):
    """What is shown and where.

    Attributes:
        trackers: Names of accelerate's trackers; `metrics.jsonl` is written in any case.
        tree_every: Steps between printed trees; None for none.
    """

    trackers: tuple[str, ...] = ("tensorboard",)
    tree_every: Positive | None = 10


class EngineConfig(Section):
    """Who samples.

    Attributes:
        hosts: URLs of `treepo serve` hosts that sample; empty for an engine of this process.
        weights: How new weights get there: by way of this machine's `memory`, or of a folder in
            `output_dir` (`reload`), which hosts on other machines must see under the same path, or
            from GPU to GPU (`nccl`, hosts only).
        threads: CPU threads of the trainer; None for torch's choice.
        vllm: vLLM's `AsyncEngineArgs` for the engine of this process.
    """

    hosts: tuple[str, ...] = ()
    weights: Literal["memory", "reload", "nccl"] = "memory"
    threads: Positive | None = None
    vllm: dict[str, Any] = {}


class TrainConfig(Section):
    """A training run.

    Attributes:
        output_dir: Where everything of the run goes; a run that is there is resumed.
        model: A folder or a name on the model hub; None for the embedded model.
        trees: A rollout file to learn from instead of sampling (offline).
        seed: Of the order of prompts, the sampling and new weights.
        steps: Batches to learn from.
        prompts_per_step: Trees of a batch.
        max_top_ups: How often a batch is filled up for prompts without reward variance.
        mixed_precision: What the model computes in; parameters stay as `dtype` says.
        dtype: What parameters are stored in.
        data: See the section, like all others below.
        tree: How trees grow; what is left out is as `TREE_DEFAULTS` says.
        sampling: How tokens are drawn.
        rewards: What a trajectory is worth.
        advantages: The estimator.
        loss: PPO's clip.
        optimizer: AdamW.
        lora: Adapters; None for full fine-tuning.
        update: Packing and mini-batches.
        eval: Evaluation.
        checkpoint: Storing.
        log: Showing.
        engine: Sampling.
    """

    output_dir: Path
    model: str | None = None
    trees: Path | None = None
    seed: Natural = 0
    steps: Positive = 100
    prompts_per_step: Positive = 32
    max_top_ups: Natural = 2
    mixed_precision: Literal["no", "bf16"] = "no"
    dtype: Literal["float32", "bfloat16"] = "float32"
    data: DataConfig = DataConfig()
    tree: TreeConfig = TREE_DEFAULTS
    sampling: SamplingConfig = SamplingConfig()
    rewards: RewardConfig = RewardConfig()
    advantages: AdvantageConfig = AdvantageConfig()
    loss: LossConfig = LossConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    lora: LoraConfig | None = None
    update: UpdateConfig = UpdateConfig()
    eval: EvalConfig = EvalConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    log: LogConfig = LogConfig()
    engine: EngineConfig = EngineConfig()

    @model_validator(mode="before")
    @classmethod
    def _fill_tree(cls, values: Any) -> Any:
        if isinstance(values, dict) and isinstance(values.get("tree"), dict):
            return {**values, "tree": {**TREE_DEFAULTS.model_dump(), **values["tree"]}}
        return values

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if (self.trees is None) == (self.data.train is None):
            raise ValueError("give one of `data.train` (prompts) and `trees` (a rollout file)")
        if (self.eval.pass_at or 1) > self.eval.samples:
            raise ValueError("`eval.pass_at` is more than `eval.samples`")
        if self.engine.weights == "nccl" and not self.engine.hosts:
            raise ValueError("`engine.weights` is 'nccl', which needs `engine.hosts`")
        if self.update.mini_batches > self.prompts_per_step:
            raise ValueError("`update.mini_batches` is more than `prompts_per_step`")
        return self

    @property
    def model_name(self) -> str:
        """What the model is called in records."""
        return self.model or MODEL_NAME
