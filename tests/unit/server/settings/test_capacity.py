"""What trees may use of an engine, and what vLLM's metric says of its cache."""

from types import SimpleNamespace

import pytest
from prometheus_client import CollectorRegistry, Gauge

from treepo.errors import ConfigError
from treepo_server.load.kv_usage import METRIC, KvUsage
from treepo_server.settings.capacity import Capacity


def scheduler(**said):
    return SimpleNamespace(
        **{"max_num_seqs": 64, "max_num_active_seqs": None, "max_num_queued_reqs": None, **said}
    )


@pytest.mark.parametrize(
    ("set_to", "engine", "ranks", "processes", "slots"),
    [
        ({}, {}, 1, 1, 64),
        ({}, {}, 1, 2, 32),
        ({}, {}, 4, 2, 32),
        ({}, {"max_num_active_seqs": 16}, 1, 1, 16),
        ({}, {"max_num_queued_reqs": 40}, 2, 1, 20),
        ({"TREEPO_TREE_SHARE": "0.25"}, {}, 1, 1, 16),
        ({"TREEPO_TREE_SHARE": "0.25", "TREEPO_MAX_LIVE_PATHS": "8"}, {}, 1, 2, 4),
        ({"TREEPO_MAX_LIVE_PATHS": "1"}, {}, 2, 4, 1),
    ],
)
def test_the_slots_of_a_rank_are_this_processs_share(set_to, engine, ranks, processes, slots):
    capacity = Capacity.from_env(set_to)
    assert capacity.slots_per_rank(scheduler(**engine), ranks, processes) == slots


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("TREEPO_TREE_SHARE", "0"),
        ("TREEPO_TREE_SHARE", "1.5"),
        ("TREEPO_TREE_SHARE", "nan"),
        ("TREEPO_KV_FULL", "most"),
        ("TREEPO_MAX_LIVE_PATHS", "0"),
        ("TREEPO_MAX_WAITING_TREES", "2.5"),
        ("TREEPO_DRAIN_S", "-1"),
        ("TREEPO_DRAIN_S", "inf"),
    ],
)
def test_a_wrong_value_is_refused_by_its_name(variable, value):
    with pytest.raises(ConfigError, match=variable):
        Capacity.from_env({variable: value})


def test_the_cache_is_crowded_when_that_of_any_rank_is():
    registry, now = CollectorRegistry(), [0.0]
    usage = KvUsage(0.9, registry, lambda: now[0])
    assert not usage.is_crowded(), "without vLLM's statistics"
    gauge = Gauge(METRIC, "as vLLM's", ["engine"], registry=registry)
    gauge.labels("0").set(0.2)
    gauge.labels("1").set(0.95)
    assert not usage.is_crowded(), "a fresh value is used again"
    now[0] += 1
    assert usage.is_crowded()
