"""The measure against a full sum, late values, and an engine that is never taken down."""

import math
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")

import torch
from vllm.v1.sample.logits_processor import build_logitsprocs
from vllm.v1.worker.gpu.sample.logits_processor import build_custom_logits_processors

from tests.support.entropies import (
    CONFIG,
    VOCABULARY,
    context,
    full_sum,
    params,
    some_logits,
    v1_processor,
    v2_processor,
    v2_states,
)
from treepo.engines import vllm_entropy
from treepo.engines.entropy_ring import EntropyRing
from treepo.engines.entropy_writer import TARGET, RingWriter
from treepo.engines.vllm_entropy import (
    EntropyProcessor,
    Outbox,
    entropy_is_available,
    processor_fqcn,
    row_entropies,
)

NAN = pytest.approx(math.nan, nan_ok=True)


@pytest.fixture
def ring():
    ring = EntropyRing.create(8, 64)
    yield ring
    ring.close()


# The measure


@pytest.mark.parametrize("scale", [0.0, 1.0, 30.0, 1e4])
@pytest.mark.parametrize("masked", [0, 1, 49_151])
def test_entropies_are_the_full_sum(scale, masked):
    logits = some_logits(3, 1, 49_152, scale)
    logits[:, 49_152 - masked :] = -math.inf
    expected = full_sum(logits)
    assert row_entropies(logits, None, None).tolist() == pytest.approx(expected.tolist(), abs=2e-5)


def test_entropies_are_taken_at_each_rows_temperature():
    logits, index = some_logits(6, 2), torch.tensor([4, 0, 5])
    temperatures = torch.tensor([0.05, 1.0, 2.5])
    expected = [
        full_sum(logits[row], float(temperature)).item()
        for row, temperature in zip(index, temperatures, strict=True)
    ]
    assert row_entropies(logits, index, temperatures).tolist() == pytest.approx(expected, abs=2e-5)


def test_entropies_do_not_depend_on_how_many_rows_are_measured_at_a_time(monkeypatch):
    logits, index = some_logits(11, 3), torch.tensor([10, 3, 7, 1, 0])
    temperatures = torch.rand(5) + 0.5
    whole = row_entropies(logits, index, temperatures)
    monkeypatch.setitem(vllm_entropy._CHUNK_LOGITS, "cpu", 2 * VOCABULARY)
    assert torch.equal(row_entropies(logits, index, temperatures), whole)
    assert torch.equal(row_entropies(logits, None, None)[index], row_entropies(logits, index, None))


def test_certainty_is_zero_and_no_distribution_is_missing():
    logits = torch.full((2, 4), -math.inf)
    logits[0, 2] = 5.0
    assert row_entropies(logits, None, None).tolist() == [0.0, NAN]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_logits_are_summed_in_single_precision(dtype):
    logits = some_logits(2, 4, 5000).to(dtype)
    expected = full_sum(logits).tolist()
    assert row_entropies(logits, None, None).tolist() == pytest.approx(expected, abs=1e-3)


# An accelerator's values arrive late


class OnAccelerator:
    """A tensor of another device, as far as `Outbox` can tell."""

    device = SimpleNamespace(type="cuda")

    def __init__(self, *values):
        self._values = torch.tensor(values)

    def to(self, device, *, non_blocking):
        """The copy on the host, as if it were still being made."""
        assert (device, non_blocking) == ("cpu", True)
        return self._values


@pytest.fixture
def events(monkeypatch):
    """The events that were made, each of which happens when the test says so."""
    made = []

    def event(device):
        assert device is OnAccelerator.device
        made.append(SimpleNamespace(is_done=False, is_recorded=False))
        made[-1].record = lambda this=made[-1]: setattr(this, "is_recorded", True)
        made[-1].query = lambda this=made[-1]: this.is_recorded and this.is_done
        return made[-1]

    monkeypatch.setattr(torch, "Event", event)
    return made


def test_late_values_are_delivered_in_order_once_they_have_arrived(events):
    outbox, got = Outbox(), []
    for value in (1.0, 2.0, 3.0):
        outbox.send(OnAccelerator(value), lambda values: got.extend(values.tolist()))
    outbox.flush()
    events[1].is_done = True
    outbox.flush()
    assert got == []
    events[0].is_done = True
    outbox.flush()
    assert got == [1.0, 2.0]
    outbox.flush()
    events[2].is_done = True
    outbox.flush()
    assert got == [1.0, 2.0, 3.0]


def test_values_that_never_arrive_do_not_pile_up(events):
    outbox, got = Outbox(), []
    for value in range(1000):
        outbox.send(OnAccelerator(float(value)), lambda values: got.extend(values.tolist()))
    for event in events:
        event.is_done = True
    outbox.flush()
    assert 0 < len(got) <= 100
    assert got == [float(value) for value in range(1000 - len(got), 1000)]


def test_late_values_of_an_aborted_request_are_dropped(ring, events):
    slot, writer = ring.acquire(), RingWriter()
    target = np.array([writer.find(slot.extra_args)], TARGET)
    outbox = Outbox()
    outbox.send(OnAccelerator(1.0), lambda values: writer.write(target, np.array([0]), values))
    slot.release()
    following = ring.acquire()
    events[0].is_done = True
    outbox.flush()
    assert following.index == slot.index
    assert following.read(0, 1) == [NAN]


# Never takes the engine down


def broken(*_):
    raise RuntimeError("no entropy today")


def test_an_error_while_measuring_switches_it_off_and_hands_the_logits_back(
    ring, monkeypatch, caplog
):
    processor, _ = v2_processor()
    slot = ring.acquire()
    processor.add_request(0, params(slot))
    monkeypatch.setattr(vllm_entropy, "row_entropies", broken)
    logits = some_logits(1, 1)
    before = logits.clone()
    for _ in range(3):
        assert processor.apply(logits, context([0], [0])) is logits
    assert torch.equal(logits, before)
    assert ring.has_failed
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    monkeypatch.undo()
    processor.apply(logits, context([0], [0]))
    assert slot.read(0, 1) == [NAN]
    assert not processor.add_request(1, params(ring.acquire()))


@pytest.mark.parametrize(
    "call",
    [
        lambda v1: v1.update_state(SimpleNamespace(added=[(0, None, None, [])])),
        lambda v1: v1.update_state(object()),
    ],
)
def test_an_update_it_cannot_read_switches_v1_off(call):
    processor = v1_processor()
    call(processor)
    logits = some_logits(1, 1)
    assert processor.apply(logits) is logits
    processor.update_state(None)


def test_states_or_contexts_it_cannot_read_switch_v2_off(ring):
    processor = EntropyProcessor(CONFIG, object())
    assert not processor.add_request(0, params(ring.acquire()))
    assert processor.apply("logits", object()) == "logits"
    processor, _ = v2_processor()
    assert processor.add_request(0, params(ring.acquire()))
    assert processor.apply("logits", object()) == "logits"
    assert not processor.add_request(0, params(ring.acquire()))


def test_with_speculative_decoding_it_stays_off(ring):
    config = SimpleNamespace(speculative_config=object())
    processor = EntropyProcessor(config, v2_states())
    assert not processor.add_request(0, params(ring.acquire()))


# What vLLM is told


def test_both_of_vllms_loaders_take_it():
    config = SimpleNamespace(
        speculative_config=None, scheduler_config=SimpleNamespace(max_num_seqs=4)
    )
    built = build_logitsprocs(config, torch.device("cpu"), False, False, [processor_fqcn()])
    assert type(built.argmax_invariant[-1]) is EntropyProcessor
    (processor,) = build_custom_logits_processors(config, v2_states(), False, [processor_fqcn()])
    assert isinstance(processor, EntropyProcessor)
    assert not processor.add_request(0, params())


def vllm_config(**changes):
    parallel = {
        "nnodes": 1,
        "use_ray": False,
        "local_engines_only": False,
        "data_parallel_size": 1,
        "data_parallel_size_local": 1,
    }
    parallel |= {name: changes.pop(name) for name in parallel.keys() & changes.keys()}
    return SimpleNamespace(
        parallel_config=SimpleNamespace(**parallel),
        model_config=SimpleNamespace(
            logits_processors=changes.pop("logits_processors", [processor_fqcn()])
        ),
        speculative_config=changes.pop("speculative_config", None),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"logits_processors": ["other:Processor", EntropyProcessor]},
        {"data_parallel_size": 4, "data_parallel_size_local": 4},
        {"data_parallel_size": 4, "local_engines_only": True},
    ],
    ids=str,
)
def test_entropies_are_available_on_one_node_with_the_processor(changes):
    assert entropy_is_available(vllm_config(**changes)) == (True, "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"logits_processors": None}, f"--logits-processors {processor_fqcn()}"),
        ({"logits_processors": ["other:Processor"]}, f"--logits-processors {processor_fqcn()}"),
        ({"speculative_config": object(), "logits_processors": None}, "speculative decoding"),
        ({"nnodes": 2}, "more than one node"),
        ({"use_ray": True}, "more than one node"),
        ({"data_parallel_size": 4}, "more than one node"),
    ],
    ids=str,
)
def test_where_entropies_are_not_available_the_reason_is_named(changes, reason):
    is_available, words = entropy_is_available(vllm_config(**changes))
    assert not is_available
    assert reason in words
