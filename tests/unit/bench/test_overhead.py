"""`bench.overhead` judges the sides of a round by each other."""

from bench import overhead


def test_overhead_compares_the_sides_of_a_round_with_each_other() -> None:
    speeds = {"plain": [100.0, 50.0, 80.0], "tree": [99.0, 49.0, 88.0], "entropy": [90.0, 40.0, 80]}
    samples = [
        overhead.Sample(side, number, 1000, 1000 / speed)
        for side, own in speeds.items()
        for number, speed in enumerate(own)
    ]
    summary = overhead.summarise(samples)
    assert summary["ratio_by_round"] == [0.99, 0.98, 1.1]
    assert (summary["ratio"], summary["entropy_ratio"]) == (0.99, 0.9)
    assert summary["ratio_interval"] == (0.98, 1.1)
    assert summary["is_met"] is True
    assert summary["tokens_per_second"] == {"plain": 80.0, "tree": 88.0, "entropy": 80.0}
