"""When a growing tree may end: what is counted as still to come.

The tree of these tests: the root forks in two after 4 tokens (mass 1/2 each), its child in four
after 6 (1/8 each). The root ends with answer x, the others as a test says.
"""

from types import SimpleNamespace

from treepo.config import TreeConfig
from treepo.engines.base import Chunk
from treepo.growth.state import Branch, Growth, Path
from treepo.policies.until import make_until
from treepo.tree import Finish, TreeFinish


def grown(*answers: str | None, **fields) -> Growth:
    """The tree with as many of the four paths finished as there are answers; the others run."""
    config = TreeConfig(**{"width": 8, "segment_tokens": 4, "until": "settled"} | fields)
    growth = Growth([1], config.resolve(1, 100, 0.5), 1)
    (root,) = growth.open_wave(8, 1)
    root.extend(chunk(10))
    (child,) = growth.open_branch(Branch(root, 4, 1), root.wave)
    child.extend(chunk(6))
    small = [child, *growth.open_branch(Branch(child, 6, 3), root.wave)]
    for path in small:
        path.extend(chunk(4))
    for path, answer in zip([root, *small], ["x", *answers], strict=False):
        finish(growth, path, answer)
    return growth


def chunk(length: int) -> Chunk:
    return Chunk([5] * length, [-0.1] * length, [0.1] * length)


def finish(growth: Growth, path: Path, answer: str | None) -> None:
    growth.end(path, Finish.EOS, path.end)
    path.answer = SimpleNamespace(key=answer, text=answer) if answer else None
    path.is_answered = True


def verdict(growth: Growth) -> TreeFinish | None:
    return make_until(growth.config)(growth)


def test_a_weighted_vote_is_settled_once_the_lead_exceeds_the_mass_that_runs():
    # x 1/2, y 1/8: the lead is 3/8, and 2/8 run.
    assert verdict(grown("y", None, vote="weighted")) is TreeFinish.SETTLED
    assert verdict(grown("y", vote="weighted")) is None


def test_slots_that_pruning_may_free_keep_a_weighted_vote_open():
    # If both running paths are given up for late leaves that say y: two prospective and two late
    # of four leaves each, x has 4/5 * 1/2 and y 1/5 * 1/2 + 1/2.
    growth = grown("y", None, vote="weighted", prune="confidence")
    assert verdict(growth) is None
    growth = grown(
        "y", None, vote="weighted", prune="confidence", branching="even", fallback="none"
    )
    assert verdict(growth) is TreeFinish.SETTLED, "the paper's budget opens no late leaf"


def test_slots_that_pruning_may_free_keep_a_vote_by_likelihood_open():
    def with_prune(prune: str) -> Growth:
        growth = grown("x", "x", "x", vote="likelihood", prune=prune)
        growth.paths[-1].logprobs[:] = [-30.0] * len(growth.paths[-1].logprobs)
        return growth

    assert verdict(with_prune("none")) is TreeFinish.SETTLED
    assert verdict(with_prune("confidence")) is None


def test_a_majority_counts_a_running_path_once_unless_more_may_be_opened():
    # x leads by 3, and two paths run that are worth one leaf each. With fallback the other five of
    # eight slots may go to anybody.
    assert verdict(grown("x", "x", vote="majority")) is TreeFinish.SETTLED
    assert verdict(grown("x", "x", vote="majority", fallback="random")) is None


def test_unread_answers_are_still_to_come():
    growth = grown("y", "x", vote="weighted")
    assert verdict(growth) is TreeFinish.SETTLED
    growth.paths[0].is_answered = False
    assert verdict(growth) is None
