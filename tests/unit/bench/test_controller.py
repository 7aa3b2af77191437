"""`bench.controller` tells the sampler's cost from the engine's, and says whether it stays flat."""

import pytest

from bench import controller


def sample(num_trees: int, tree_s: float, engine_s: float) -> controller.Sample:
    return controller.Sample("even", num_trees, 1_000_000, tree_s, tree_s, engine_s)


def test_the_controllers_cost_is_what_the_engine_does_not_explain() -> None:
    assert sample(16, 3.0, 1.0).controller_us == pytest.approx(2.0)
    assert sample(16, 2.5, 1.0).tokens_per_second == pytest.approx(400_000)


def test_a_controller_is_flat_when_its_least_costs_are() -> None:
    noisy = [sample(size, 4.0 + late, 1.0) for size in (16, 256, 1024) for late in (0, 0.5, 0.25)]
    summary = controller.summarise(noisy)
    assert (summary["is_flat"], summary["spread"]) == (True, 1.0)
    assert (summary["is_fast"], summary["tokens_per_second"]) == (True, 235294)
    steep = [sample(16, 2.0, 1.0), sample(256, 6.0, 1.0), sample(1024, 6.0, 1.0)]
    summary = controller.summarise(steep)
    assert (summary["is_flat"], summary["spread"]) == (False, 5.0)
    assert (summary["is_fast"], summary["tokens_per_second"]) == (False, 166667)


def test_the_measured_engine_does_the_same_work_without_the_sampler(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(controller, "TREES_PER_SAMPLE", 4)
    monkeypatch.setattr(controller, "_set_collector", lambda *, is_calm: None)
    for variant in controller.VARIANTS:
        measured = controller.measure(variant, 2)
        assert measured.num_tokens > 4 * controller.MAX_TOKENS
        assert measured.tree_s > measured.engine_s > 0
