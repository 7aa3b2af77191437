"""What a request says beside its `tree` holds on every path, or is refused."""

import pytest

from tests.contract.conftest import text_of

EVEN = {"width": 4, "branching": "even", "segment_tokens": 32}
DIGITS = {str(15 + number): -100 for number in range(10)}
"""A bias against every digit of the tiny model, by token id."""


def texts(answer):
    return [text_of(choice) for choice in answer.choices]


HONOURED = {
    "logit_bias": {"logit_bias": DIGITS},
    "repetition_penalty": {"extra_body": {"repetition_penalty": 1.8}},
    "presence_penalty": {"presence_penalty": 2.0},
    "frequency_penalty": {"frequency_penalty": 2.0},
    "bad_words": {"extra_body": {"bad_words": ["s", "11"]}},
    "min_p": {"extra_body": {"min_p": 0.5}},
    "allowed_token_ids": {"extra_body": {"allowed_token_ids": list(range(64, 90))}},
    "min_tokens": {"extra_body": {"min_tokens": 50, "stop_token_ids": [82, 83]}},
    "ignore_eos": {"extra_body": {"ignore_eos": True}},
    "stop": {"stop": ["2b", "s1", "qq"]},
    "skip_special_tokens": {"extra_body": {"skip_special_tokens": False}},
}


@pytest.mark.parametrize("options", HONOURED.values(), ids=HONOURED)
def test_a_greedy_tree_obeys_as_a_greedy_request_does(ask, options):
    plain = ask(None, max_tokens=80, temperature=0, **options)
    answer = ask(EVEN, n=1, max_tokens=80, temperature=0, **options)
    assert texts(answer) == texts(plain)
    assert answer.choices[0].finish_reason == plain.choices[0].finish_reason


@pytest.mark.parametrize("field", ["presence_penalty", "frequency_penalty"])
def test_what_would_start_afresh_in_a_branch_is_not_branched(ask, field):
    answer = ask(EVEN, n=4, max_tokens=50, **{field: 1.0})
    assert answer.tree["stats"]["branches"] == 0
    assert any(field in note and "independently" in note for note in answer.tree["notes"])


def test_a_bias_holds_on_every_path(ask):
    answer = ask(EVEN, n=4, max_tokens=100, logit_bias=DIGITS)
    assert answer.tree["stats"]["branches"] + answer.tree["stats"]["fallbacks"] > 0
    assert not any(character.isdigit() for text in texts(answer) for character in text)


def test_a_salt_keeps_the_prefix_cache_apart(complete):
    def cached(salt):
        prompt = "a prompt of more than two blocks " * 3
        answer = complete(
            {"width": 2, "root_branching": 1},
            prompt=prompt,
            max_tokens=4,
            extra_body={"cache_salt": salt},
        )
        assert (
            answer.usage.prompt_tokens_details.cached_tokens
            == (answer.tree["stats"]["prompt_cached_tokens"])
        )
        return answer.tree["stats"]["prompt_cached_tokens"]

    assert cached("first") == 0
    assert cached("second") == 0
    assert cached("first") > 0


def test_streams_count_cached_tokens_too(complete):
    prompt = "another prompt of more than two blocks " * 3
    options = {"prompt": prompt, "max_tokens": 4}
    complete({"width": 2}, **options)
    usage = {"include_usage": True}
    last = list(complete({"width": 2}, stream=True, stream_options=usage, **options))[-1]
    assert last.usage.prompt_tokens_details.cached_tokens > 0
