"""Every stream is read by the unmodified OpenAI SDK, and tells what the tree says."""

from collections import defaultdict

import pytest

from tests.contract.conftest import text_of

EVEN = {"width": 4, "branching": "even", "segment_tokens": 32, "include": ["texts"]}


class Read:
    """A stream, read to its end."""

    def __init__(self, chunks):
        self.chunks = list(chunks)
        self.texts = defaultdict(str)
        self.first_texts = {}
        self.ends = defaultdict(list)
        for chunk in self.chunks:
            for choice in chunk.choices:
                text = (choice.delta.content if hasattr(choice, "delta") else choice.text) or ""
                self.texts[choice.index] += text
                if text:
                    self.first_texts.setdefault(choice.index, text)
                if choice.finish_reason:
                    self.ends[choice.index].append(choice)
        self.tree = self.chunks[-1].tree

    @property
    def trajectories(self):
        return {t["leaf"]: t for t in self.tree["trajectories"]}


def read(ask, tree=EVEN, **options):
    return Read(ask(tree, stream=True, **{"max_tokens": 60, **options}))


@pytest.mark.parametrize("num_choices", [1, 2, 4])
def test_each_choice_streams_its_trajectory_and_ends_once(ask, num_choices):
    stream = read(ask, n=num_choices)
    assert sorted(stream.ends) == list(range(num_choices))
    assert [len(ends) for ends in stream.ends.values()] == [1] * num_choices
    assert [choice["index"] for choice in stream.tree["choices"]] == list(range(num_choices))
    for choice in stream.tree["choices"]:
        assert stream.trajectories[choice["leaf"]]["text"] == stream.texts[choice["index"]]


@pytest.mark.parametrize("num_choices", [1, 2, 4])
def test_the_last_chunk_names_the_winner(ask, num_choices):
    stream = read(ask, n=num_choices)
    winner = stream.tree["choices"][stream.tree["winner"]]
    assert winner["answer"] == stream.tree["answer"]
    assert [hasattr(chunk, "tree") for chunk in stream.chunks[1:-1]].count(True) == sum(
        "progress" in (getattr(chunk, "tree", None) or {}) for chunk in stream.chunks[1:-1]
    )


def test_progress_comes_before_the_first_token(ask):
    stream = read(ask, n=1)
    first = stream.chunks[0]
    assert set(first.tree["progress"]) == {"live_paths", "finished", "generated_tokens"}
    assert first.tree["id"] == stream.tree["id"]
    assert len({chunk.id for chunk in stream.chunks}) == 1


def test_only_chosen_choices_are_streamed_with_the_winner_first(ask):
    stream = read(ask, n=2)
    assert stream.tree["winner"] == 0
    whole = ask({**EVEN}, n=2, max_tokens=60)
    assert len(whole.choices) == len(stream.texts) == 2


def test_paths_stream_as_they_grow(ask):
    stream = read(ask, n=4)
    order = [chunk.choices[0].index for chunk in stream.chunks if chunk.choices]
    assert order != sorted(order)


def test_a_fork_begins_with_the_text_it_inherits(ask):
    stream = read(ask, {**EVEN, "root_branching": 1, "width": 2}, n=2)
    shared = 0
    while stream.texts[0][: shared + 1] == stream.texts[1][: shared + 1]:
        shared += 1
    assert shared > 0
    assert stream.texts[1].startswith(stream.first_texts[1])
    assert stream.first_texts[1] == stream.first_texts[0]


def test_usage_comes_last_and_counts_every_token_once(ask):
    stream = read(ask, n=4, stream_options={"include_usage": True})
    last = stream.chunks[-1]
    assert last.choices == []
    assert last.usage.completion_tokens == stream.tree["stats"]["generated_tokens"]
    assert last.usage.total_tokens == last.usage.prompt_tokens + last.usage.completion_tokens
    assert all(getattr(chunk, "usage", None) is None for chunk in stream.chunks[:-1])


def test_with_continuous_usage_every_chunk_counts_the_tree_so_far(ask):
    wanted = {"include_usage": True, "continuous_usage_stats": True}
    stream = read(ask, n=4, stream_options=wanted)
    counts = [chunk.usage.completion_tokens for chunk in stream.chunks]
    assert counts == sorted(counts)
    assert (counts[0], counts[-1]) == (0, stream.tree["stats"]["generated_tokens"])
    assert len({chunk.usage.prompt_tokens for chunk in stream.chunks}) == 1


def test_a_seeded_stream_says_what_the_whole_answer_says(ask):
    whole = ask(EVEN, n=1, max_tokens=60, seed=11)
    stream = read(ask, n=1, seed=11)
    assert stream.texts[0] == text_of(whole.choices[0])


def test_stop_strings_never_show(ask):
    stream = read(ask, n=4, stop=["1b", "2h", "11"], max_tokens=200)
    for text in stream.texts.values():
        assert not any(stop in text for stop in ("1b", "2h", "11"))


def test_choices_that_were_never_filled_end_too(ask):
    stream = read(ask, {**EVEN, "max_total_tokens": 5}, n=4, max_tokens=200)
    assert sorted(stream.ends) == [0, 1, 2, 3]
    assert stream.tree["finish"] == "max_total_tokens"
    unfilled = [ends[0] for index, ends in stream.ends.items() if not stream.texts[index]]
    assert all(choice.finish_reason == "stop" for choice in unfilled)
    assert all(choice.tree["finish"] == "unfinished" for choice in unfilled)


def test_logprobs_stream_with_their_tokens(chat):
    stream = read(chat, n=4, logprobs=True, max_tokens=40)
    seen = defaultdict(str)
    for chunk in stream.chunks:
        for choice in chunk.choices:
            for entry in choice.logprobs.content if choice.logprobs else ():
                seen[choice.index] += entry.token.removesuffix("<|end|>")
    assert seen == stream.texts


@pytest.mark.parametrize("num_choices", [1, 3])
def test_the_sdks_accumulator_reads_a_tree(client, num_choices):
    extra = {"tree": {**EVEN, "width": 3, "max_depth": 2}}
    with client.chat.completions.stream(
        model="tiny",
        messages=[{"role": "user", "content": "hi"}],
        n=num_choices,
        extra_body=extra,
    ) as stream:
        deltas = defaultdict(str)
        for event in stream:
            if event.type == "chunk":
                for choice in event.chunk.choices:
                    deltas[choice.index] += choice.delta.content or ""
        final = stream.get_final_completion()
    assert len(final.choices) == num_choices
    for choice in final.choices:
        assert choice.message.content == deltas[choice.index]
        assert choice.message.role == "assistant"
        assert choice.finish_reason == "stop"


PRUNING = {"prune": "confidence", "prune_warmup": 1, "prune_quantile": 0.5, "prune_window": 8}


def test_what_replaces_a_pruned_path_gets_an_index_of_its_own(ask):
    tree = {"width": 4, **PRUNING, "include": ["texts"]}
    stream = read(ask, tree, n=4, max_tokens=300, seed=3)
    assert stream.tree["stats"]["prunes"] > 0
    indices = [choice["index"] for choice in stream.tree["choices"]]
    assert indices == sorted(stream.ends) == list(range(len(indices)))
    assert len(indices) > 4
    assert [len(ends) for ends in stream.ends.values()] == [1] * len(indices)
    shown = {choice["leaf"]: stream.texts[choice["index"]] for choice in stream.tree["choices"]}
    for leaf, trajectory in stream.trajectories.items():
        assert shown[leaf] == trajectory["text"]
    for choice in stream.tree["choices"]:
        (end,) = stream.ends[choice["index"]]
        if choice["finish"] == "pruned":
            assert end.finish_reason == "stop"
            assert end.tree["finish"] == "pruned"
