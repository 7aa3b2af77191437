"""Laws that every tree keeps, whatever the policy, the engine's timing and its faults."""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.laws import assert_laws
from tests.support.machines import CharDecoder, find_word
from tests.support.scenarios import (
    BRANCHINGS,
    FALLBACKS,
    sample,
    scenarios,
    scripts,
    without_clock,
)
from treepo.tree import Finish, TreeFinish

SETTINGS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
policies = pytest.mark.parametrize(
    ("branching", "fallback"), [(b, f) for b in BRANCHINGS for f in FALLBACKS]
)


@policies
@SETTINGS
@given(st.data())
def test_a_tree_comes_out_whole_and_every_law_holds(branching, fallback, data):
    sampled = sample(data.draw(scenarios(branching=branching, fallback=fallback)))
    assert_laws(sampled)
    tree = sampled.tree
    assert tree.finish is TreeFinish.COMPLETE
    assert sampled.inner.counters.generated_tokens == tree.stats.generated_tokens
    assert sampled.inner.counters.cached_tokens == tree.stats.cached_tokens
    if fallback != "none":
        assert len(tree.trajectories) == sampled.scenario.config.width
    settings = tree.settings
    may_be_late = settings["start"] < settings["width"] and settings["branching_factor"] > 1
    assert tree.weights_exact == (fallback == "none" and not may_be_late)
    assert not (tree.weights_exact and any(p.is_late for p in sampled.watch.paths))


@policies
@SETTINGS
@given(st.data())
def test_the_same_seed_and_engine_give_the_same_tree(branching, fallback, data):
    scenario = data.draw(scenarios(branching=branching, fallback=fallback))
    assert without_clock(sample(scenario).tree) == without_clock(sample(scenario).tree)


@policies
@SETTINGS
@given(st.data())
def test_texts_are_those_of_the_tokens_and_end_where_they_should(branching, fallback, data):
    scenario = data.draw(scenarios(branching=branching, fallback=fallback))
    sampling = replace(scenario.sampling, min_tokens=0)
    scenario = replace(scenario, has_texts=True, sampling=sampling)
    tree = sample(scenario).tree
    decoder, find = CharDecoder(), find_word()
    for trajectory in tree.trajectories:
        whole, text = decoder.decode(tree.token_ids(trajectory)), trajectory.text
        stops = [whole.find(s) + len(s) for s in sampling.stop if s in whole]
        answer = find(whole, 0)
        ends = [end for end in (*stops, answer) if end is not None]
        assert not ends or min(ends) == len(whole), "nothing is generated behind a stop"
        if trajectory.finish is Finish.STOP:
            shown = (
                [whole] if sampling.include_stop else [whole.removesuffix(s) for s in sampling.stop]
            )
            assert text in shown
        else:
            assert text == whole
            assert (trajectory.finish is Finish.ANSWER) == bool(ends)
        assert trajectory.answer == (text.rpartition("z")[2] if "z" in text else None)


@pytest.mark.parametrize("branching", BRANCHINGS)
@SETTINGS
@given(st.data())
def test_chunks_and_latency_change_nothing_in_a_tree_without_fallback(branching, data):
    scenario = data.draw(scenarios(branching=branching, fallback="none"))
    other = data.draw(scripts())
    script = replace(
        scenario.script,
        chunk_tokens=other.chunk_tokens,
        overrun_tokens=other.overrun_tokens,
        delay=other.delay,
    )
    both = [
        {
            p.key: (p.start, p.token_ids, p.finish, p.masses, p.is_late)
            for p in sample(case).watch.paths
        }
        for case in (scenario, replace(scenario, script=script))
    ]
    assert both[0] == both[1]
