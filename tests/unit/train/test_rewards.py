"""Rewards keep TRL's contract, and a bad one costs its own trajectory only."""

import json
import sys
from types import SimpleNamespace

import pytest

from treepo.errors import ConfigError
from treepo.train.reward_pool import RewardConfig, RewardPool, RewardRequest
from treepo.train.rewards import call, exact_match, overlong, resolve

USER_REWARDS = '''
import os, time

def length(prompts, completions, completion_ids, **columns):
    return [len(ids) for ids in completion_ids]

def rank(prompts, completions, **columns):
    """Needs to see a prompt's completions together."""
    print("chatter on standard output")
    return [sorted(completions).index(c) for c in completions]

async def later(completions, **columns):
    return [1.0 for _ in completions]

def moody(completions, mood, **columns):
    for text in completions:
        if text == "raise":
            raise KeyError("no such thing")
        if text == "hang":
            time.sleep(600)
        if text == "die":
            os._exit(3)
    return [None if text == "none" else float(mood[0]) for text in completions]

def short(completions, **columns):
    return [1.0]

def infinite(completions, **columns):
    return [float("inf") if text == "bad" else 1.0 for text in completions]

def wants(completions, gold, **columns):
    return [1.0 for _ in completions]
'''


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "user_rewards_for_test.py").write_text(USER_REWARDS)
    monkeypatch.syspath_prepend(str(tmp_path))
    return "user_rewards_for_test"


def request(*texts, prompt="p", **columns):
    ids = tuple(tuple(range(len(text))) for text in texts)
    return RewardRequest(prompt, tuple(texts), ids, columns)


def test_a_user_function_gets_trls_arguments_and_a_prompts_completions_together(user_module):
    config = RewardConfig((f"{user_module}:length", f"{user_module}:rank"), weights=(0.5, 10.0))
    with RewardPool(config) as pool:
        scores = pool.score([request("bbb", "a"), request("cc")])
    # Half of lengths 3, 1 and 2, and ten times the ranks 1, 0 and 0.
    assert scores.rewards == [[11.5, 0.5], [1.0]]
    assert not scores.failures


def test_conversations_become_messages_and_coroutines_are_awaited():
    seen = []

    async def reward(prompts, completions, completion_ids, level):
        seen.append((prompts, completions, completion_ids, level))
        return [1, None]

    chat = [{"role": "user", "content": "hi"}]
    assert call(reward, chat, ["a", "b"], [[1], [2, 3]], {"level": 7}) == [1.0, None]
    answers = [[{"role": "assistant", "content": text}] for text in "ab"]
    assert seen == [([chat, chat], answers, [[1], [2, 3]], [7, 7])]


def test_a_reward_that_raises_hangs_or_dies_costs_that_trajectory_only(user_module):
    config = RewardConfig((f"{user_module}:moody",), limit_s=1.5)
    with RewardPool(config) as pool:
        scores = pool.score(
            [
                request("ok", "raise", "fine", mood=1),
                request("hang", "ok", mood=2),
                request("die", "ok", "none", mood=3),
                request("ok", mood=4),
            ]
        )
        again = pool.score([request("ok", mood=5)])
    assert scores.rewards == [[1, None, 1], [None, 2], [None, 3, None], [4]]
    assert scores.failures == {"raised": 1, "timeout": 1, "crash": 1}
    assert again.rewards == [[5]]


def test_a_missing_reward_can_be_given_a_value(user_module):
    config = RewardConfig((f"{user_module}:moody",), missing_reward=-1.0)
    with RewardPool(config) as pool:
        scores = pool.score([request("raise", "none", "ok", mood=1)])
    assert scores.rewards == [[-1, -1, 1]]
    assert scores.failures == {"raised": 1}


def test_none_is_no_failure_and_leaves_the_other_functions_sum(user_module):
    config = RewardConfig((f"{user_module}:moody", f"{user_module}:later"))
    with RewardPool(config) as pool:
        scores = pool.score([request("none", "raise", "ok", mood=2)])
    assert scores.rewards == [[1, None, 3]]


def test_a_list_of_the_wrong_length_or_a_number_that_is_none_is_a_failure(user_module):
    with RewardPool(RewardConfig((f"{user_module}:short",))) as pool:
        # Alone each completion gets the one reward that the function returns.
        assert pool.score([request("a", "b")]).rewards == [[1, 1]]
    with RewardPool(RewardConfig((f"{user_module}:infinite",))) as pool:
        scores = pool.score([request("a", "bad")])
    assert scores.rewards == [[1, None]]
    assert scores.failures == {"raised": 1}


def test_many_prompts_come_back_in_order(user_module):
    requests = [request("x" * n, "x" * (n + 1)) for n in range(20)]
    with RewardPool(RewardConfig((f"{user_module}:length",), num_workers=2)) as pool:
        scores = pool.score(requests)
    assert scores.rewards == [[n, n + 1] for n in range(20)]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nothing", "allowed: `math_verify`"),
        ("no_such_module:f", "cannot be loaded"),
        ("math:no_such_function", "cannot be loaded"),
        ("math:pi", "a float, not a function"),
        ("overlong:5", "for example `overlong:7168,512`"),
        ("overlong:5,6", "a buffer from 1 to the maximum"),
        ("reasoning_gym:chain_sum", "pip install reasoning-gym"),
    ],
)
def test_a_wrong_name_fails_before_anything_runs(spec, message, monkeypatch):
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    with pytest.raises(ConfigError, match=message):
        resolve(spec)


def test_a_pool_refuses_wrong_names_missing_columns_and_weights_that_do_not_fit():
    with pytest.raises(ConfigError, match="allowed: `math_verify`"):
        RewardPool(RewardConfig(("nothing",)))
    with pytest.raises(ConfigError, match=r"names 1 rewards and `rewards\.weights` has 2"):
        RewardPool(RewardConfig(("exact_match",), weights=(1.0, 2.0)))
    with RewardPool(RewardConfig(("exact_match",))) as pool:
        with pytest.raises(ConfigError, match="needs one of the columns answer"):
            pool.score([request("a", colour="red")])
        assert pool.score([request("a ", "b", answer="a")]).rewards == [[1, 0]]


def test_math_verify_compares_the_last_box_with_the_answer_however_it_is_written():
    math_verify = resolve("math_verify")
    completions = [r"\boxed{3}, no, \boxed{0.5}", "0.5", r"\boxed{\frac{2}{4}}", r"\boxed{2}"]
    for gold in ("1/2", r"\frac{1}{2}", r"so \boxed{1/2}", "half of it\n#### 0.5", "$0.5$"):
        assert math_verify(completions=completions, answer=[gold] * 4) == [1, 0, 1, 0]
    assert math_verify(completions=completions[:1], solution=[""]) == [None]


def test_math_verify_in_the_pool_is_bounded_in_time():
    # Nested powers are compared by evaluating them, which does not end.
    tower, plain = r"\boxed{9^{9^{9^9}}}", r"\boxed{7}"
    with RewardPool(RewardConfig(("math_verify",), limit_s=2.0)) as pool:
        scores = pool.score([request(plain, tower, answer="7")])
    assert scores.rewards == [[1, None]]
    assert scores.failures == {"timeout": 1}


def test_exact_match_ignores_space_around_and_reads_messages():
    message = [{"role": "assistant", "content": "12"}]
    assert exact_match(completions=["12 ", "1", message], answer=[12, 12, 12]) == [1, 0, 1]


def test_the_overlong_penalty_is_zero_then_linear_to_minus_one():
    ids = [[0] * size for size in (0, 6, 8, 10)]
    assert overlong(completion_ids=ids, max_tokens=10, buffer_tokens=4) == [0, 0, -0.5, -1]
    assert call(resolve("overlong:10,4"), "p", ["a"], [[0] * 9], {"answer": 1}) == [-0.75]


def test_reasoning_gym_scores_the_tagged_boxed_or_whole_answer_against_its_entry(monkeypatch):
    def score_answer(answer, entry):
        return float(answer == entry["answer"]) * entry["metadata"]["worth"]

    def get_score_answer_fn(name):
        if name != "chain_sum":
            raise ValueError(f"Dataset '{name}' not registered")
        return score_answer

    library = SimpleNamespace(get_score_answer_fn=get_score_answer_fn)
    monkeypatch.setitem(sys.modules, "reasoning_gym", library)
    reward = resolve("reasoning_gym:chain_sum")
    texts = ["<answer>1</answer> <answer> 5 </answer>", r"is \boxed{5}", " 5\n", "6"]
    columns = {"question": "2+3", "answer": "5", "metadata": json.dumps({"worth": 0.5})}
    assert call(reward, "p", texts, [[0]] * 4, columns) == [0.5, 0.5, 0.5, 0]
    entry = {"entry": {"answer": "6", "metadata": {"worth": 1}}}
    assert call(reward, "p", texts, [[0]] * 4, entry) == [0, 0, 0, 1]
    with pytest.raises(ConfigError, match="not registered"):
        resolve("reasoning_gym:nothing")
