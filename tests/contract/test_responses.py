"""`/v1/responses` takes a `tree` and is read by the unmodified OpenAI SDK, whole and streamed."""

import pytest
from openai import BadRequestError

from tests.contract.conftest import MAX_LENGTH, MODEL
from tests.support.tiny_chat import PRINTABLE

EVEN = {"width": 4, "branching": "even", "segment_tokens": 32, "include": ["texts"]}


def text_of_leaf(tree, leaf):
    return next(t["text"] for t in tree["trajectories"] if t["leaf"] == leaf)


def test_a_plain_response_is_plain(respond):
    answer = respond(None, max_output_tokens=4)
    assert not hasattr(answer, "tree")
    assert set(answer.output_text) <= set(PRINTABLE)


def test_the_output_is_the_winner(respond):
    answer = respond(EVEN, max_output_tokens=60)
    assert len(answer.output) == 1
    (choice,) = answer.tree["choices"]
    assert answer.tree["winner"] == choice["index"] == 0
    assert choice["answer"] == answer.tree["answer"]
    assert text_of_leaf(answer.tree, choice["leaf"]) == answer.output_text != ""
    assert len(answer.tree["trajectories"]) == 4


def test_usage_counts_every_token_once(respond, server):
    before = server.metric("generation_tokens_total")
    answer = respond(EVEN, max_output_tokens=60)
    usage = answer.usage
    assert usage.output_tokens == answer.tree["stats"]["generated_tokens"]
    assert usage.output_tokens == server.metric("generation_tokens_total") - before
    assert usage.total_tokens == usage.input_tokens + usage.output_tokens
    assert usage.input_tokens == answer.tree["stats"]["prompt_tokens"]
    assert usage.input_tokens_details.cached_tokens == answer.tree["stats"]["prompt_cached_tokens"]


@pytest.mark.parametrize("width", [1, 4])
def test_a_stream_says_what_the_whole_answer_says(respond, width):
    tree = {**EVEN, "width": width}
    whole = respond(tree, max_output_tokens=60)
    events = list(respond(tree, max_output_tokens=60, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events[:2]] == ["response.created", "response.in_progress"]
    progress = events[1].response.tree["progress"]
    assert set(progress) >= {"live_paths", "finished", "generated_tokens"}
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    last = events[-1]
    assert last.type == "response.completed"
    assert "".join(deltas) == last.response.output_text == whole.output_text
    assert last.response.tree["answer"] == whole.tree["answer"]
    assert last.response.usage.output_tokens == last.response.tree["stats"]["generated_tokens"]


def test_the_options_of_its_own_streams_are_no_fault(respond):
    events = list(
        respond(
            EVEN, max_output_tokens=8, stream=True, stream_options={"include_obfuscation": False}
        )
    )
    assert events[-1].type == "response.completed"


def test_the_sdks_accumulator_reads_a_tree(client):
    extra = {"tree": EVEN, "seed": 3}
    options = {"model": MODEL, "input": "hi", "max_output_tokens": 40, "extra_body": extra}
    with client.responses.stream(**options) as stream:
        deltas = [event.delta for event in stream if event.type == "response.output_text.delta"]
        final = stream.get_final_response()
    assert final.output_text == "".join(deltas)
    assert final.tree["winner"] == 0


def test_logprobs_come_where_asked_for(respond):
    wanted = {"include": ["message.output_text.logprobs"], "top_logprobs": 2}
    answer = respond(EVEN, max_output_tokens=40, **wanted)
    entries = answer.output[0].content[0].logprobs
    shown = "".join(entry.token for entry in entries if entry.token != "<|end|>")
    assert shown == answer.output_text
    assert all(len(entry.top_logprobs) == 2 for entry in entries)


def test_a_schema_is_sampled_as_independent_trajectories(respond):
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    kind = {"type": "json_schema", "name": "s", "schema": {**schema, "additionalProperties": False}}
    answer = respond(EVEN, max_output_tokens=60, text={"format": kind})
    assert answer.tree["stats"]["branches"] == 0
    assert any("independently" in note for note in answer.tree["notes"])


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize(
    ("tree", "options", "field"),
    [
        ({"width": 99}, {}, "tree.width"),
        ({"answer": {"regex": "("}}, {}, "tree.answer"),
        ({}, {"extra_body": {"n": 2}}, "n"),
        ({}, {"max_output_tokens": MAX_LENGTH - 1}, "max_output_tokens"),
        ({}, {"extra_body": {"background": True}}, "background"),
        ({}, {"temperature": -1}, "temperature"),
    ],
    ids=str,
)
def test_what_is_wrong_is_refused_before_anything_is_sent(respond, tree, options, field, stream):
    with pytest.raises(BadRequestError) as caught:
        respond(tree, stream=stream, **options)
    assert caught.value.param == field
