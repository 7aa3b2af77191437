"""Parsers, adapters, priorities and keys, on a server that has them: a tree changes none of it.

The tiny model says what a bias or a grammar makes it say; the parsers are vLLM's own.
"""

import json
import re

import pytest
from openai import AuthenticationError, BadRequestError, OpenAI, PermissionDeniedError

from tests.contract.conftest import MESSAGES
from tests.support import tiny_adapter, tiny_chat
from tests.support.server import serve

MODEL, ADAPTER, ALIAS = "base", "adapted", "adapted-tree"
KEY = "a-key-of-this-test"
EVEN = {"width": 4, "branching": "even", "segment_tokens": 32, "include": ["texts"]}
THINK, ENOUGH = "<think>", "</think>"
RARE, OFTEN, FORCED = 3, 8, 100
"""Biases under which the model writes a mark now and then, often, or at once."""
BLANKS = {"220": -100, "198": -100, "197": -100, "201": -100}
"""A bias against space, newline, tab and return, by token id."""
TOOL = {
    "type": "function",
    "function": {
        "name": "add",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"a": {"enum": [1, 2]}},
            "required": ["a"],
            "additionalProperties": False,
        },
    },
}


@pytest.fixture(scope="module")
def rich(tmp_path_factory):
    """A server with everything that a tree must get along with."""
    folder = tmp_path_factory.mktemp("rich")
    model = tiny_chat.build(folder / "model", marks=(THINK, ENOUGH))
    adapter = tiny_adapter.build(model, folder / "adapter")
    flags = ["--served-model-name", MODEL, "--kv-cache-memory-bytes", str(64 * 1024**2)]
    flags += ["--reasoning-parser", "deepseek_r1", "--enable-auto-tool-choice"]
    flags += ["--tool-call-parser", "hermes", "--enable-lora", "--max-lora-rank", "8"]
    flags += ["--lora-modules", f"{ADAPTER}={adapter}", "--scheduling-policy", "priority"]
    flags += ["--api-key", KEY, "--tree-alias", f'{ALIAS}={{"width": 2, "model": "{ADAPTER}"}}']
    with serve(model, folder / "log", *flags, VLLM_ALLOW_RUNTIME_LORA_UPDATING="1") as running:
        yield running


@pytest.fixture(scope="module")
def mark_ids(rich):
    """Ids of the marks around reasoning, as a bias names them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(rich.log.parent / "model")
    return {mark: str(tokenizer.convert_tokens_to_ids(mark)) for mark in (THINK, ENOUGH)}


@pytest.fixture(scope="module")
def enough_id(mark_ids):
    return mark_ids[ENOUGH]


@pytest.fixture(scope="module")
def sdk(rich):
    with OpenAI(base_url=f"{rich.url}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
        yield client


@pytest.fixture(scope="module")
def chat(sdk):
    def call(tree, **options):
        extra = {**options.pop("extra_body", {}), **({} if tree is None else {"tree": tree})}
        fixed = {"model": MODEL, "messages": MESSAGES, "seed": 1, "max_tokens": 80}
        return sdk.chat.completions.create(**{**fixed, **options, "extra_body": extra})

    return call


@pytest.mark.parametrize("num_choices", [1, 4])
def test_reasoning_is_parsed_on_every_choice(chat, enough_id, num_choices):
    answer = chat(EVEN, n=num_choices, logit_bias={enough_id: RARE})
    texts = {t["leaf"]: t["text"] for t in answer.tree["trajectories"]}
    assert answer.tree["stats"]["branches"] > 0
    assert all(choice.message.reasoning for choice in answer.choices)
    for choice in answer.choices:
        reasoning, _, content = texts[choice.tree["leaf"]].partition(ENOUGH)
        assert (choice.message.reasoning or "") == reasoning
        assert (choice.message.content or "") == content


@pytest.mark.parametrize("num_choices", [1, 4])
def test_streamed_reasoning_is_parsed_on_every_choice(chat, enough_id, num_choices):
    stream = chat(EVEN, n=num_choices, logit_bias={enough_id: RARE}, stream=True)
    reasoning, content = [""] * num_choices, [""] * num_choices
    for chunk in stream:
        for choice in chunk.choices:
            reasoning[choice.index] += getattr(choice.delta, "reasoning", None) or ""
            content[choice.index] += choice.delta.content or ""
    texts = {t["leaf"]: t["text"] for t in chunk.tree["trajectories"]}
    for choice in chunk.tree["choices"]:
        written = texts[choice["leaf"]].partition(ENOUGH)
        assert (reasoning[choice["index"]], content[choice["index"]]) == (written[0], written[2])


def num_thought(text):
    """Tokens within the marks, which may be nested; a token is a character."""
    depth = count = 0
    for part in re.split(f"({THINK}|{ENOUGH})", text):
        if part in (THINK, ENOUGH):
            depth = max(0, depth + (1 if part == THINK else -1))
        else:
            count += len(part) * (depth > 0)
    return count


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("num_choices", [1, 2, 4])
def test_reasoning_tokens_are_those_of_the_choices_that_came_back(
    chat, mark_ids, num_choices, stream
):
    bias = {mark_ids[THINK]: OFTEN, mark_ids[ENOUGH]: RARE}
    options = {"n": num_choices, "logit_bias": bias}
    if stream:
        usage = {"stream_options": {"include_usage": True}}
        answer = list(chat(EVEN, stream=True, **options, **usage))[-1]
        choices = answer.tree["choices"]
    else:
        answer = chat(EVEN, **options)
        choices = [choice.tree for choice in answer.choices]
    texts = {t["leaf"]: t["text"] for t in answer.tree["trajectories"]}
    thought = sum(num_thought(texts[choice["leaf"]]) for choice in choices)
    assert answer.usage.completion_tokens_details.reasoning_tokens == thought
    assert len(choices) == num_choices
    assert thought > 0


def test_a_response_has_its_reasoning_apart(sdk, enough_id):
    extra = {"tree": EVEN, "seed": 1, "logit_bias": {enough_id: RARE}}
    answer = sdk.responses.create(
        model=MODEL, input=MESSAGES, max_output_tokens=80, extra_body=extra
    )
    (text,) = (
        t["text"]
        for t in answer.tree["trajectories"]
        if t["leaf"] == answer.tree["choices"][0]["leaf"]
    )
    reasoning, _, content = text.partition(ENOUGH)
    assert reasoning
    assert answer.output[0].type == "reasoning"
    assert answer.output[0].content[0].text == reasoning
    assert answer.output_text == content


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
def test_an_alias_calls_tools_as_its_model_does(chat, enough_id, stream):
    answer = chat(
        None,
        model=ALIAS,
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
        logit_bias={enough_id: FORCED, **BLANKS},
        stream=stream,
    )
    calls, tree = _calls(answer, stream=stream)
    assert calls[0][0] == "add"
    assert json.loads(calls[0][1])["a"] in (1, 2)
    assert tree["settings"]["width"] == 2


@pytest.mark.parametrize("stream", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("num_choices", [1, 2])
def test_required_tools_are_called_from_independent_trajectories(
    chat, enough_id, num_choices, stream
):
    answer = chat(
        {"width": 2},
        n=num_choices,
        tools=[TOOL],
        tool_choice="required",
        parallel_tool_calls=False,
        max_tokens=200,
        # A grammar lets a model go on with blanks for ever, and this one would.
        logit_bias={enough_id: FORCED, **BLANKS},
        stream=stream,
    )
    calls, tree = _calls(answer, stream=stream)
    assert len(calls) == num_choices
    for name, arguments in calls.values():
        assert name == "add"
        assert json.loads(arguments)["a"] in (1, 2)
    assert tree["stats"]["branches"] == 0
    assert any("a grammar" in note for note in tree["notes"])


def _calls(answer, *, stream):
    """Name and arguments of the tool call of each choice, and the tree."""
    calls = {}
    for chunk in answer if stream else [answer]:
        for choice in chunk.choices:
            message = choice.delta if stream else choice.message
            for call in message.tool_calls or ():
                name, arguments = calls.get(choice.index, ("", ""))
                called = call.function
                calls[choice.index] = (
                    name + (called.name or ""),
                    arguments + (called.arguments or ""),
                )
    return calls, chunk.tree


def test_a_thinking_budget_holds_on_independent_trajectories(chat):
    # The budget counts from the start of thinking, which this model must be given.
    messages = [*MESSAGES, {"role": "assistant", "content": THINK}]
    options = {"thinking_token_budget": 10, "add_generation_prompt": False}
    extra = {**options, "continue_final_message": True}
    answer = chat(EVEN, n=4, messages=messages, extra_body=extra)
    assert any("a thinking budget" in note for note in answer.tree["notes"])
    assert answer.tree["stats"]["branches"] == 0
    for trajectory in answer.tree["trajectories"]:
        thought, mark, _ = trajectory["text"].partition(ENOUGH)
        assert mark
        assert len(thought) <= 12


def test_an_adapter_answers_by_its_name(chat):
    def text(model, tree):
        answer = chat(tree, model=model, temperature=0)
        assert answer.model == model
        return answer.choices[0].message.reasoning

    base, adapted = text(MODEL, EVEN), text(ADAPTER, EVEN)
    assert base == text(MODEL, None)
    assert adapted == text(ADAPTER, None) != base


def test_an_alias_may_stand_for_an_adapter(sdk, chat):
    answer = chat(None, model=ALIAS, temperature=0)
    assert answer.model == ADAPTER
    assert answer.tree["settings"]["width"] == 2
    plain = chat(None, model=ADAPTER, temperature=0)
    assert answer.choices[0].message.reasoning == plain.choices[0].message.reasoning
    listed = {model.id: model for model in sdk.models.list()}
    assert set(listed) == {MODEL, ADAPTER, ALIAS}
    assert listed[ALIAS].parent == ADAPTER


def test_no_adapter_is_loaded_under_the_name_of_an_alias(rich, sdk, chat):
    def load(name):
        folder = str(rich.log.parent / "adapter")
        return sdk.post(
            "/load_lora_adapter", cast_to=str, body={"lora_name": name, "lora_path": folder}
        )

    with pytest.raises(BadRequestError) as caught:
        load(ALIAS)
    assert caught.value.param == "lora_name"
    load("another")
    assert chat(EVEN, model="another", max_tokens=4).model == "another"
    sdk.post("/unload_lora_adapter", cast_to=str, body={"lora_name": "another"})


def test_a_priority_is_taken_where_the_engine_knows_them(chat):
    answer = chat({"width": 2}, max_tokens=4, extra_body={"priority": 7})
    assert answer.tree["finish"] == "complete"


@pytest.mark.parametrize("path", ["/models", "/treepo/capabilities"])
def test_our_routes_want_the_key(rich, sdk, path):
    assert sdk.get(path, cast_to=object)
    with (
        OpenAI(base_url=f"{rich.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises((AuthenticationError, PermissionDeniedError)),
    ):
        stranger.get(path, cast_to=object)


@pytest.mark.parametrize("path", ["/chat/completions", "/responses", "/messages"])
def test_a_stranger_learns_nothing_from_a_tree(rich, sdk, path):
    body = {"model": MODEL, "tree": {"width": 0}, "messages": MESSAGES, "input": "hi"}
    with pytest.raises(BadRequestError):
        sdk.post(path, cast_to=object, body=body)
    with (
        OpenAI(base_url=f"{rich.url}/v1", api_key="wrong", max_retries=0) as stranger,
        pytest.raises(AuthenticationError),
    ):
        stranger.post(path, cast_to=object, body=body)
