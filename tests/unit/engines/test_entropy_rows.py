"""What vLLM's model runners say, turned into the right entropy at the right place.

The runners themselves are not needed: V1's batch is changed through vLLM's own `BatchUpdateBuilder`
the way its `InputBatch` does it, V2's steps are described by objects with the fields of
`LogitsContext`.
"""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("vllm", reason="vLLM is not installed")

import torch
from vllm.v1.sample.logits_processor import BatchUpdateBuilder, MoveDirectionality

from tests.support.entropies import (
    context,
    full_sum,
    params,
    some_logits,
    v1_processor,
    v2_processor,
)
from treepo.engines.entropy_ring import EntropyRing

NAN = pytest.approx(math.nan, nan_ok=True)


@pytest.fixture
def ring():
    ring = EntropyRing.create(8, 64)
    yield ring
    ring.close()


# The V1 runner


class Batch:
    """A batch of requests that changes as vLLM's `InputBatch` does, beside a processor."""

    def __init__(self, processor):
        self.processor = processor
        self.rows = []
        self.builder = BatchUpdateBuilder()

    def change(self, added, rng, num_removed=0, *, swap=False):
        """One update: finished requests go, new ones come, holes are filled, two rows swap."""
        for row in rng.choice(len(self.rows), min(num_removed, len(self.rows)), replace=False):
            self.rows[row] = None
            self.builder.removed_append(int(row))
        for request in added:
            row = self.builder.pop_removed()
            if row is None:
                row = len(self.rows)
                self.rows.append(None)
            self.rows[row] = request
            self.builder.added.append((row, request.params, None, request.output))
        self._condense()
        if swap and len(self.rows) > 1:
            one, two = (int(row) for row in rng.choice(len(self.rows), 2, replace=False))
            self.rows[one], self.rows[two] = self.rows[two], self.rows[one]
            self.builder.moved.append((one, two, MoveDirectionality.SWAP))
        self.processor.update_state(self.builder.get_and_reset(len(self.rows)))

    def _condense(self):
        while self.builder.has_removed() and None in self.rows:
            if self.rows[-1] is None:
                self.rows.pop()
                continue
            empty = self.builder.pop_removed()
            last = len(self.rows) - 1
            self.rows[empty] = self.rows.pop()
            self.builder.moved.append((last, empty, MoveDirectionality.UNIDIRECTIONAL))

    def step(self, seed):
        """One token for every row whose prompt has been read."""
        logits = some_logits(len(self.rows), seed)
        assert self.processor.apply(logits) is logits
        for request, entropy in zip(self.rows, full_sum(logits).tolist(), strict=True):
            request.expected[len(request.output)] = entropy
            if not request.is_reading_prompt:
                request.output.append(0)
            request.is_reading_prompt = False


class Request:
    """A request of the test: where it writes, and what should stand there."""

    def __init__(self, slot, num_output_tokens=0, *, is_reading_prompt=False):
        self.slot = slot
        self.params = params(slot)
        self.output = [0] * num_output_tokens
        self.expected = {}
        self.is_reading_prompt = is_reading_prompt

    def check(self):
        """What was written is what was expected, and nothing else was."""
        expected = [self.expected.get(at, math.nan) for at in range(len(self.output))]
        read = self.slot.read(0, len(self.output))
        assert read == pytest.approx(expected, abs=2e-5, nan_ok=True)


changes = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.lists(st.sampled_from(["tree", "resumed tree", "split prompt", "plain"]), max_size=3),
        st.booleans(),
    ),
    min_size=1,
    max_size=12,
)


@settings(deadline=None, max_examples=60)
@given(changes, st.integers(0, 2**32 - 1))
def test_v1_rows_are_followed_through_every_change_of_the_batch(steps, seed):
    ring, rng = EntropyRing.create(64, 64), np.random.default_rng(seed)
    try:
        batch = Batch(v1_processor())
        requests = []
        for number, (num_removed, kinds, swap) in enumerate(steps):
            added = [
                Request(
                    None if kind == "plain" else ring.acquire(),
                    7 if kind == "resumed tree" else 0,
                    is_reading_prompt=kind == "split prompt",
                )
                for kind in kinds
            ]
            requests += added
            batch.change(added, rng, num_removed, swap=swap)
            if batch.rows:
                batch.step(number)
        for request in requests:
            if request.slot is not None:
                request.check()
        assert not ring.has_failed
    finally:
        ring.close()


def test_v1_leaves_the_logits_alone_and_the_best_token_the_best(ring):
    processor = v1_processor()
    batch, request = Batch(processor), Request(ring.acquire())
    batch.change([request, Request(None)], np.random.default_rng(1))
    logits = some_logits(2, 9)
    before = logits.clone()
    assert processor.apply(logits) is logits
    assert torch.equal(logits, before)
    assert processor.is_argmax_invariant()
    assert request.slot.read(0, 1) == pytest.approx([full_sum(before)[0].item()], abs=2e-5)


# The V2 runner


def test_v2_rows_are_measured_at_their_temperature_wherever_they_stand(ring):
    processor, prompt_tokens = v2_processor()
    slots = {request: ring.acquire() for request in (0, 2, 5)}
    prompt_tokens[:] = [10, 10, 20, 0, 0, 30]
    added = {
        0: processor.add_request(0, params(slots[0], temperature=0.5)),
        1: processor.add_request(1, params(temperature=0.5)),
        2: processor.add_request(2, params(slots[2], temperature=0.0)),
        5: processor.add_request(5, params(slots[5])),
    }
    assert added == {0: True, 1: False, 2: True, 5: True}
    logits = some_logits(4, 5)
    # One entry more than there are requests: the array is padded for CUDA graphs.
    assert processor.apply(logits, context([5, 1, 0, 2], [33, 12, 10, 24, 0])) is logits
    expected = [full_sum(row).item() for row in logits]
    assert slots[5].read(2, 5) == pytest.approx([math.nan, expected[0], math.nan], nan_ok=True)
    assert slots[0].read(0, 1) == pytest.approx([full_sum(logits[2], 0.5).item()])
    assert slots[2].read(4, 5) == pytest.approx([expected[3]])
    assert not ring.has_failed


def test_v2_batches_of_tree_rows_alone_and_of_none_are_measured_and_skipped(ring):
    processor, prompt_tokens = v2_processor()
    slots = [ring.acquire(), ring.acquire()]
    prompt_tokens[:2] = [4, 5]
    for request, slot in enumerate(slots):
        assert processor.add_request(request, params(slot))
    assert not processor.add_request(3, params())
    logits = some_logits(2, 6)
    processor.apply(logits, context([1, 0], [5, 4]))
    processor.apply(logits, context([3], [1]))
    assert slots[1].read(0, 2) == pytest.approx([full_sum(logits[0]).item(), math.nan], nan_ok=True)
    assert slots[0].read(0, 2) == pytest.approx([full_sum(logits[1]).item(), math.nan], nan_ok=True)


def test_v2_prompts_in_the_middle_of_being_read_write_nothing(ring):
    processor, prompt_tokens = v2_processor()
    slot = ring.acquire()
    prompt_tokens[0] = 100
    processor.add_request(0, params(slot))
    # A row has 64 cells, so that 36 tokens before the first would fall on the cell of token 28.
    processor.apply(some_logits(1, 8), context([0], [128]))
    processor.apply(some_logits(1, 7), context([0], [64]))
    expected = [math.nan] * 28 + [full_sum(some_logits(1, 8)).item()] + [math.nan] * 35
    assert slot.read(0, 64) == pytest.approx(expected, nan_ok=True)


def test_v2_a_request_number_used_again_forgets_its_last_request(ring):
    processor, _ = v2_processor()
    tree, later = ring.acquire(), ring.acquire()
    processor.add_request(0, params(tree, temperature=0.3))
    processor.add_request(0, params())
    processor.apply(some_logits(1, 9), context([0], [0]))
    assert tree.read(0, 1) == [NAN]
    processor.add_request(0, params(later))
    processor.apply(some_logits(1, 9), context([0], [0]))
    assert tree.read(0, 1) == [NAN]
    assert later.read(0, 1) == pytest.approx([full_sum(some_logits(1, 9)).item()])
