"""Laws of finding an answer in a text."""

import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treepo.answers.extraction import (
    box_end,
    boxes,
    json_end,
    last_boxed,
    last_json_field,
    last_number,
)

words = st.text(st.characters(exclude_characters="{}\\"), max_size=6)
nested = st.recursive(
    words | st.sampled_from([r"\{", r"\}", r"\frac{1}{2}", r"\\", r"\text{cm}"]),
    lambda inner: st.lists(inner, max_size=3).map(lambda parts: "{" + "".join(parts) + "}"),
    max_leaves=12,
)


@given(before=words, content=nested, after=words)
def test_a_box_holds_its_contents_whatever_the_nesting(before, content, after):
    text = f"{before}\\boxed{{{content}}}{after}"
    assert last_boxed(text) == content


@given(first=nested, second=nested)
def test_the_box_that_closes_last_counts(first, second):
    assert last_boxed(f"\\boxed{{{first}}} then \\boxed{{{second}}} and \\boxed{{cut") == second


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{un \boxed{7} cut", "7"),
        (r"\boxed{1 + \boxed{2}}", r"1 + \boxed{2}"),
        (r"}}} {{ \boxed {5}", "5"),
        (r"\boxed{\left\{ 1, 2 \right\}}", r"\left\{ 1, 2 \right\}"),
        (r"\boxed{}", ""),
        (r"\boxed{5", None),
        (r"boxed{5}", None),
    ],
)
def test_unbalanced_text_around_a_box_does_no_harm(text, content):
    assert last_boxed(text) == content


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is -3.", "-3"),
        ("5-3", "3"),
        ("10 - 3 = 7.", "7"),
        ("costs $1,234.50, not more", "$1,234.50"),
        ("12 / 25.", "12 / 25"),
        (r"so \dfrac{-1}{2}$", r"\dfrac{-1}{2}"),
        (r"about 1.5 \times 10^{-3}", r"1.5 \times 10^{-3}"),
        ("that is 2.5e10", "2.5e10"),
        (r"a share of 50\% of it", r"50\%"),
        ("H2O and x2", None),
        ("version 1.2.3", "1.2"),
        ("−7", "−7"),
        ("no digits", None),
    ],
)
def test_a_number_has_its_sign_separators_fraction_and_power(text, number):
    assert last_number(text) == number


values = st.recursive(
    st.text(max_size=5) | st.booleans() | st.integers(),
    lambda inner: st.dictionaries(st.sampled_from(["a", "b", "answer"]), inner, max_size=3),
    max_leaves=6,
)


@given(value=st.text() | st.integers() | st.booleans(), other=values, fence=st.booleans())
def test_a_field_is_read_from_the_last_object_that_has_it(value, other, fence):
    doc = json.dumps({"x": other, "result": {"value": [other, value]}}, indent=2 if fence else None)
    text = f'{{"result": {{"value": [0, "old"]}}}} so {{ x }}:\n{doc}\n{{"note": 1}} done'
    expected = value if isinstance(value, str) else json.dumps(value)
    if isinstance(value, int) and not isinstance(value, bool):
        expected = str(value)
    assert last_json_field(text, "result.value.1") == expected


def test_numbers_in_json_stay_as_written():
    assert last_json_field('{"answer": 0.50}', "answer") == "0.50"
    assert last_json_field('{"answer": null}', "answer") is None
    assert last_json_field('{"answer": {"b": true, "a": []}}', "answer") == '{"a": [], "b": true}'


@given(value=values.filter(lambda v: isinstance(v, dict) and v), ascii_only=st.booleans())
def test_an_unfinished_object_hides_the_objects_inside_it(value, ascii_only):
    text = json.dumps({"n": [-1.5e-300, True, False, None], "inner": {"answer": 1}, "v": value})
    text = text if ascii_only else json.dumps(json.loads(text), ensure_ascii=False)
    assert {json_end(text[:end], 0, "answer") for end in range(len(text))} == {None}
    assert json_end(text[:-1] + ', "answer": 2}', 0, "answer") == len(text) + len(', "answer": 2')


pieces = st.lists(
    st.sampled_from(
        [
            "word ",
            r"\boxed{",
            r"\boxed {3}",
            "{",
            "}",
            r"\}",
            "\\",
            r"\frac{1}{2}",
            '{"answer": 3}',
            '{"steps": [{"answer": 1}], "answer": {"x": "}"}}',
            '{"answer": ',
            '"',
            "\n",
        ]
    ),
    max_size=10,
).map("".join)
cuts = st.lists(st.integers(0, 200), max_size=12)


def first_end(find, text, marks):
    since = 0
    for mark in [*sorted({m for m in marks if m < len(text)}), len(text)]:
        end = find(text[:mark], since)
        if end is not None:
            return end
        since = mark
    return None


@given(text=pieces, marks=cuts)
def test_a_box_is_seen_when_it_closes_however_the_text_arrives(text, marks):
    by_character = first_end(box_end, text, range(len(text)))
    assert first_end(box_end, text, marks) == by_character
    assert by_character is None or text[by_character - 1] == "}"


objects = st.lists(
    st.dictionaries(st.sampled_from(["answer", "b"]), values, min_size=1, max_size=2).map(
        json.dumps
    )
    | st.sampled_from(["so ", "{ x }", r"\frac{1}{2}", "```json\n", '"said"']),
    max_size=6,
).map(" ".join)


@given(text=objects, marks=cuts)
def test_a_json_answer_is_seen_when_it_closes_however_the_text_arrives(text, marks):
    def find(text, since):
        return json_end(text, since, "answer")

    by_character = first_end(find, text, range(len(text)))
    assert first_end(find, text, marks) == by_character
    assert (by_character is None) == (last_json_field(text, "answer") is None)


@given(text=pieces)
def test_what_stops_a_path_is_what_is_read_from_it(text):
    end = first_end(box_end, text, range(len(text)))
    if end is not None:
        start, stop, is_outermost = list(boxes(text[:end]))[-1]
        assert is_outermost
        assert last_boxed(text[:end]) == text[start:stop]
    end = first_end(lambda t, since: json_end(t, since, "answer"), text, range(len(text)))
    assert end is None or last_json_field(text[:end], "answer") is not None


def test_an_answer_before_the_cleared_position_does_not_count():
    text = r"\boxed{1} and \boxed{2}"
    assert box_end(text, 0) == len(r"\boxed{1}")
    assert box_end(text, len(r"\boxed{1}")) == len(text)
    assert box_end(text, len(text)) is None


def test_looking_back_is_bounded():
    assert box_end("\\boxed{" + "x" * 4000 + "}", 4005) is not None
    assert box_end("\\boxed{" + "x" * 9000 + "}", 9005) is None
    assert json_end('{"answer": "' + "x" * 30000 + '"}', 30010, "answer") is None


@pytest.mark.parametrize(
    "piece",
    [r"\boxed{", "{", '{"a":', '{"', '{"a{"a', '{"a": {', "1,", "1", "1 / ", r"\frac{", "-", "$"],
)
def test_no_text_takes_quadratic_time(piece):
    text = piece * (200_000 // len(piece))
    begin = time.process_time()
    last_boxed(text)
    last_number(text)
    last_json_field(text, "a")
    assert time.process_time() - begin < 2
