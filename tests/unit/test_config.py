"""Settings made from others: the same tree without branches, and without anything that ends it."""

from treepo.config import TreeConfig


def test_independent_trajectories_share_the_prompt_only_and_end_as_was_asked() -> None:
    asked = TreeConfig(width=6, branching="low_prob", max_depth=3, until="settled", start=2)
    assert asked.independent() == asked.model_copy(
        update={"root_branching": 6, "branching_factor": 1, "fallback": "none"}
    )


def test_whole_samples_keep_how_answers_are_read_and_chosen_and_run_to_their_end() -> None:
    read = {"segment_tokens": 8, "answer": "boxed", "vote": "weighted"}
    ends = {"max_depth": 3, "max_total_tokens": 50, "deadline_ms": 9, "prune": "confidence"}
    asked = TreeConfig(branching="low_prob", until=0.9, start=2, **ends, **read)
    whole = {"branching": "even", "branching_factor": 1, "fallback": "none"}
    assert asked.whole_samples(4) == TreeConfig(width=4, root_branching=4, **whole, **read)
