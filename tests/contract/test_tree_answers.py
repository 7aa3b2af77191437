"""A request with `tree` is answered as the OpenAI SDK expects, with the tree beside it."""

import json

import pytest

from tests.contract.conftest import MAX_LENGTH, text_of

EVEN = {"width": 4, "branching": "even", "segment_tokens": 32}
DETAIL = ["nodes", "texts", "entropies"]


def texts(answer):
    return [text_of(choice) for choice in answer.choices]


def test_a_plain_request_is_plain(ask):
    answer = ask(None, max_tokens=8, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 8
    assert not hasattr(answer, "tree")
    assert not hasattr(answer.choices[0], "tree")


def test_a_null_tree_is_no_tree(ask):
    assert not hasattr(ask(None, max_tokens=2, extra_body={"tree": None}), "tree")


def test_one_choice_comes_back_and_it_is_the_winner(ask):
    answer = ask({**EVEN, "include": ["texts"]}, max_tokens=60)
    assert len(answer.choices) == 1
    own = answer.choices[0].tree
    trajectory = next(t for t in answer.tree["trajectories"] if t["leaf"] == own["leaf"])
    assert trajectory["text"] == text_of(answer.choices[0])
    assert own["answer"] == answer.tree["answer"]
    assert len(answer.tree["trajectories"]) == 4


def test_choices_are_ordered_by_their_votes(ask):
    answer = ask({**EVEN, "width": 6}, n=6, max_tokens=40)
    keys = [vote["key"] for vote in answer.tree["votes"]]
    key_of = {t["leaf"]: t["key"] for t in answer.tree["trajectories"]}
    places = [key_of[choice.tree["leaf"]] for choice in answer.choices]
    ranks = [keys.index(key) if key is not None else len(keys) for key in places]
    assert ranks == sorted(ranks)
    assert len({choice.tree["leaf"] for choice in answer.choices}) == 6
    assert [choice.index for choice in answer.choices] == list(range(6))


def test_the_report_adds_up(ask):
    tree = ask(EVEN, max_tokens=60).tree
    assert tree["finish"] == "complete"
    assert tree["weights_exact"] == (tree["settings"]["fallback"] == "none")
    assert sum(t["weight"] for t in tree["trajectories"]) == pytest.approx(1)
    assert sum(vote["count"] for vote in tree["votes"]) <= 4
    assert 0 < tree["effective_samples"] <= 4
    stats = tree["stats"]
    assert stats["trajectory_tokens"] + stats["discarded_tokens"] == (
        stats["generated_tokens"] + stats["reused_tokens"]
    )


def test_usage_counts_the_prompt_once_and_every_token_once(ask):
    plain = ask(None, max_tokens=1)
    answer = ask(EVEN, n=4, max_tokens=60)
    assert answer.usage.prompt_tokens == plain.usage.prompt_tokens
    assert answer.usage.completion_tokens == answer.tree["stats"]["generated_tokens"]
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    cached = answer.usage.prompt_tokens_details.cached_tokens
    assert cached == answer.tree["stats"]["prompt_cached_tokens"]


def test_the_engine_generated_what_usage_says(ask, server):
    before = server.metric("generation_tokens_total")
    answer = ask({**EVEN, "width": 8}, max_tokens=50)
    assert server.metric("generation_tokens_total") - before == answer.usage.completion_tokens


def test_nodes_are_a_tree_whose_texts_join_to_the_choices(ask):
    answer = ask({**EVEN, "include": DETAIL}, n=4, max_tokens=60)
    nodes = answer.tree["nodes"]
    assert [node["id"] for node in nodes] == list(range(len(nodes)))
    assert any(node["parent"] is not None for node in nodes)
    for choice in answer.choices:
        path = [nodes[number] for number in choice.tree["path"]]
        assert path[-1]["id"] == choice.tree["leaf"]
        assert "".join(node["text"] for node in path) == text_of(choice)
        assert all(len(node["entropies"]) == node["num_tokens"] for node in path)
        assert all(value > 0 for node in path for value in node["entropies"])


def test_detail_comes_only_where_asked_for(ask):
    tree = ask({"width": 2, "include": ["nodes"]}, max_tokens=8).tree
    assert not {"text", "entropy", "entropies"} & set(tree["nodes"][0])
    assert "nodes" not in ask({"width": 2}, max_tokens=8).tree


def test_segments_are_rounded_up_to_the_engines_blocks(ask):
    settings = ask({"width": 2, "segment_tokens": 33}, max_tokens=8).tree["settings"]
    assert settings["segment_tokens"] == 64


def test_a_greedy_tree_says_what_a_greedy_request_says(ask):
    plain = ask(None, max_tokens=40, temperature=0)
    answer = ask(EVEN, max_tokens=40, temperature=0)
    assert texts(answer) == texts(plain)
    assert answer.choices[0].finish_reason == plain.choices[0].finish_reason


def test_logprobs_are_those_of_a_plain_request(chat, complete):
    for ask, wanted in ((chat, {"logprobs": True, "top_logprobs": 3}), (complete, {"logprobs": 3})):
        plain = ask(None, max_tokens=12, temperature=0, **wanted).choices[0].logprobs
        own = ask(EVEN, max_tokens=12, temperature=0, **wanted).choices[0].logprobs
        assert own.model_dump() == plain.model_dump()


def test_logprobs_cover_inherited_tokens(chat):
    answer = chat(EVEN, n=4, max_tokens=50, logprobs=True)
    for choice in answer.choices:
        tokens = [entry.token for entry in choice.logprobs.content if entry.token != "<|end|>"]
        assert "".join(tokens) == choice.message.content


def test_the_same_seed_gives_the_same_tree(ask):
    first, second, other = (ask(EVEN, n=4, max_tokens=50, seed=seed) for seed in (3, 3, 4))
    assert texts(first) == texts(second) != texts(other)
    assert len(set(texts(first))) == 4


def test_stop_strings_end_every_path(ask):
    answer = ask({**EVEN, "width": 8}, n=8, max_tokens=60, stop=["1", "bh"])
    for choice in answer.choices:
        assert not any(stop in text_of(choice) for stop in ("1", "bh"))
        if choice.tree["finish"] == "stop":
            assert choice.stop_reason in ("1", "bh")
            assert choice.finish_reason == "stop"
    assert any(choice.tree["finish"] == "stop" for choice in answer.choices)


def test_stop_strings_show_where_asked_for(ask):
    extra = {"include_stop_str_in_output": True}
    answer = ask(EVEN, n=4, max_tokens=200, stop=["1"], extra_body=extra)
    stopped = [choice for choice in answer.choices if choice.tree["finish"] == "stop"]
    assert stopped
    assert all(text_of(c).index("1") == len(text_of(c)) - 1 for c in stopped)


def test_stop_tokens_end_paths_and_do_not_show(ask):
    digit = {"stop_token_ids": [16, 17]}
    answer = ask(EVEN, n=4, max_tokens=200, extra_body=digit)
    stopped = [choice for choice in answer.choices if choice.tree["finish"] == "stop"]
    assert stopped
    for choice in stopped:
        assert choice.stop_reason in (16, 17)
        assert not {"1", "2"} & set(text_of(choice))


def test_min_tokens_hold(ask):
    extra = {"min_tokens": 30, "stop_token_ids": [16, 17]}
    answer = ask(EVEN, n=4, max_tokens=60, extra_body=extra)
    nodes = ask({**EVEN, "include": ["nodes"]}, n=4, max_tokens=60, extra_body=extra).tree["nodes"]
    ends = [node["start"] + node["num_tokens"] for node in nodes if node["finish"]]
    assert min(ends) >= 30
    assert min(len(text) for text in texts(answer)) >= 29


def test_uncertainty_is_measured_only_where_something_reads_it(ask):
    assert ask({"width": 2, "branching_factor": 1}, max_tokens=4).tree["uncertainty"] == "none"
    assert ask({"width": 2}, max_tokens=4).tree["uncertainty"] == "entropy"


def test_what_is_shown_does_not_change_the_evidence(ask):
    plain = ask(EVEN, max_tokens=60).tree
    shown = ask({**EVEN, "include": ["nodes"]}, max_tokens=60).tree
    assert plain["uncertainty"] == "entropy"
    assert plain["effective_samples"] == shown["effective_samples"]


def test_without_a_bound_paths_go_to_the_models_length(chat):
    messages = [{"role": "user", "content": "x" * (MAX_LENGTH - 60)}]
    room = MAX_LENGTH - chat(None, messages=messages, max_tokens=1).usage.prompt_tokens
    tree = {"width": 2, "root_branching": 2}
    answer = chat(tree, n=2, messages=messages, extra_body={"ignore_eos": True})
    assert answer.usage.completion_tokens == 2 * room > 0
    assert {choice.finish_reason for choice in answer.choices} == {"length"}


def test_a_grammar_is_sampled_as_independent_trajectories(ask):
    extra = {"structured_outputs": {"choice": ["yes", "no"]}}
    answer = ask(EVEN, n=4, max_tokens=20, extra_body=extra)
    assert set(texts(answer)) <= {"yes", "no"}
    assert answer.tree["stats"]["branches"] == 0
    assert answer.tree["settings"]["root_branching"] == 4
    assert any("independently" in note for note in answer.tree["notes"])


def test_a_token_limit_still_gives_a_choice(ask):
    answer = ask({**EVEN, "max_total_tokens": 10}, n=4, max_tokens=300)
    assert answer.tree["finish"] == "max_total_tokens"
    assert answer.choices[0].tree["finish"] in ("unfinished", "length")
    assert text_of(answer.choices[0])


def test_a_deadline_still_gives_a_choice(ask):
    tree = {**EVEN, "deadline_ms": 1}
    answer = ask(tree, max_tokens=300, extra_body={"ignore_eos": True})
    assert answer.tree["finish"] == "deadline"
    assert len(answer.choices) == 1
    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].tree["finish"] == "unfinished"


def test_a_callers_pattern_reads_the_answers(ask):
    tree = ask({**EVEN, "answer": {"regex": "([0-9])b"}}, max_tokens=100).tree
    assert tree["votes"]
    assert all(vote["answer"].isdigit() for vote in tree["votes"])
    assert tree["agreement"] == pytest.approx(tree["votes"][0]["share"])


def test_the_response_is_json_without_gaps(ask):
    tree = ask({**EVEN, "include": DETAIL}, max_tokens=40).tree
    assert json.loads(json.dumps(tree, allow_nan=False)) == tree
