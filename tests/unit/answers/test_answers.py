"""Laws of reading answers: kinds, equivalence, bounded time, and what goes wrong being said."""

import asyncio
import subprocess
import sys
import textwrap

import pytest

from treepo.answers.pool import WorkerPool
from treepo.answers.reader import Answer, AnswerReader, AnswerWatch, parse_rule
from treepo.errors import FieldError

PATIENT_S = 30.0


@pytest.fixture(scope="module")
def pool():
    pool = WorkerPool(num_workers=1)
    yield pool
    pool.close()


async def read(pool, answer, text, limit_s=PATIENT_S):
    reader = AnswerReader.from_config(answer, pool=pool, limit_s=limit_s)
    return await reader.read(text), reader.failures


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("auto", r"2 then \boxed{\frac{1}{2}} then 3", Answer("1/2", r"\frac{1}{2}")),
        ("auto", "so it is 1,000.", Answer("1000", "1,000")),
        ("auto", r"\boxed{}", None),
        ("auto", "nothing", None),
        ("boxed", "42", None),
        ("boxed", r"\boxed{ Paris }", Answer("paris", "Paris")),
        ("last_number", r"\boxed{5} or 6", Answer("6", "6")),
        ("none", r"\boxed{5}", None),
        ({"json": "result.value"}, '{"result": {"value": 0.50}}', Answer("1/2", "0.50")),
        ({"json": "a"}, r'{"a": "\ud800 no"}', Answer("no", "? no")),
    ],
)
async def test_plain_answers_need_no_child_process(answer, text, expected):
    class NoPool:
        async def ask(self, job, limit_s):
            raise AssertionError(job)

    assert await read(NoPool(), answer, text) == (expected, {})


@pytest.mark.parametrize(
    "texts",
    [
        [r"\frac{\sqrt{3}}{2}", r"\sqrt3/2", r"\frac{3^{1/2}}{2}", r"\sqrt{\frac{3}{4}}", "0.5√3"],
        ["x^2+2x+1", "(x+1)^2", "y = 1+x(x+2)"],
        [r"\{1, 2\}", "2, 1", r"x=1 \text{ or } x=2"],
        [r"\frac{x+1}{x^2-1}", r"\frac{1}{x-1}"],
        ["[0,1)", r"x \in [0, 1)", r"\left[0,1\right)"],
        [r"2\pi", r"\pi \cdot 2", "2π"],
        ["3<x", "x>3"],
        ["1/2", r"\frac{1}{3} + \frac{1}{6}", r"2^{-1}", r"\log_4 2"],
        [r"\begin{pmatrix} 1 \\ 2 \end{pmatrix}", r"\begin{bmatrix} 1 \\ 2 \end{bmatrix}"],
        ["(1,2)", r"\left(1, 2\right)"],
    ],
)
async def test_equal_formulas_are_one_vote(pool, texts):
    answers = [(await read(pool, "boxed", rf"\boxed{{{text}}}"))[0] for text in texts]
    assert len({answer.key for answer in answers}) == 1
    assert [answer.text for answer in answers] == texts


async def test_unequal_formulas_are_not(pool):
    texts = ["(1,2)", "(2,1)", "[1,2]", "1,2", r"\sqrt{2}", "x+1", "x-1", "x>1", "x<1", "2x", "x^2"]
    keys = [(await read(pool, "boxed", rf"\boxed{{{text}}}"))[0].key for text in texts]
    assert len(set(keys)) == len(texts)


@pytest.mark.parametrize(
    ("pattern", "text", "key"),
    [
        (r"Answer: (\w+)", "Answer: no. Answer: Yes", "yes"),
        (r"\d+ euros", "it costs 5 euros", "5 euros"),
        (r"(a)|b", "a b", None),
        (r"zzz", "nothing", None),
    ],
)
async def test_a_pattern_gives_the_last_match(pool, pattern, text, key):
    answer, failures = await read(pool, {"regex": pattern}, text)
    assert (answer.key if answer else None) == key
    assert not failures


async def test_a_pattern_that_backtracks_for_ever_is_no_answer_and_is_counted(pool):
    reader = AnswerReader.from_config({"regex": r"(a+)+b"}, pool=pool, limit_s=0.2)
    for _ in range(4):
        assert await reader.read("a" * 60) is None
    assert reader.failures == {"timeout": 3, "gave_up": 1}
    assert (await read(pool, {"regex": r"a+"}, "xaa"))[0] == Answer("aa", "aa")


async def test_texts_that_are_read_at_once_give_up_together(pool):
    reader = AnswerReader.from_config({"regex": r"(a+)+b"}, pool=pool, limit_s=0.2)
    assert await asyncio.gather(*(reader.read("a" * 60) for _ in range(16))) == [None] * 16
    assert reader.failures["timeout"] <= 4
    assert reader.failures.total() == 16


async def test_a_formula_that_explodes_is_no_answer_and_is_counted(pool):
    answer, failures = await read(pool, "boxed", r"\boxed{9^{9^{9^{9^9}}}}", limit_s=1.0)
    assert answer is None
    assert sum(failures.values()) == 1


async def test_a_hanging_job_does_not_hold_up_the_event_loop(pool):
    hanging = asyncio.create_task(read(pool, {"regex": r"(a+)+b"}, "a" * 60, limit_s=0.5))
    await asyncio.sleep(0)
    assert await read(pool, "boxed", r"\boxed{5}") == (Answer("5", "5"), {})
    assert not hanging.done()
    assert (await hanging)[1] == {"timeout": 1}


async def test_a_child_that_cannot_be_started_is_no_answer_and_is_counted(monkeypatch):
    own = WorkerPool()
    with monkeypatch.context() as broken:
        broken.setattr(sys, "executable", "/no/such/python")
        assert await read(own, {"regex": "a"}, "a") == (None, {"crash": 1})
    assert await read(own, {"regex": "a"}, "a") == (Answer("a", "a"), {})
    own.close()


@pytest.fixture
def extractors(tmp_path, monkeypatch):
    """A pool whose children see five installed extractors."""
    (tmp_path / "their_extractors.py").write_text(
        textwrap.dedent(
            """
            import os

            def first_word(text):
                print("not a reply")
                return text.split()[0] if text else None

            def raises(text):
                raise LookupError(text)

            def hangs(text):
                while True:
                    pass

            def dies(text):
                os._exit(3)

            def leaves(text):
                raise SystemExit
            """
        )
    )
    names = ["first_word", "raises", "hangs", "dies", "leaves"]
    info = tmp_path / "their-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their\nVersion: 1.0\n")
    points = "".join(f"{name} = their_extractors:{name}\n" for name in names)
    (info / "entry_points.txt").write_text(f"[treepo.answer_extractors]\n{points}")
    monkeypatch.syspath_prepend(str(tmp_path))
    pool = WorkerPool(num_workers=1)
    yield pool
    pool.close()


async def test_an_installed_extractor_is_called_by_name_and_contained(extractors):
    assert (await read(extractors, "first_word", "0.5 is it"))[0] == Answer("1/2", "0.5")
    assert (await read(extractors, "first_word", ""))[0] is None
    assert await read(extractors, "raises", "x") == (None, {"raised": 1})
    assert await read(extractors, "dies", "x") == (None, {"crash": 1})
    assert await read(extractors, "leaves", "x") == (None, {"crash": 1})
    assert await read(extractors, "hangs", "x", limit_s=0.2) == (None, {"timeout": 1})
    assert (await read(extractors, "first_word", "yes"))[0] == Answer("yes", "yes")


@pytest.mark.parametrize(
    "answer",
    [
        "no_such_extractor",
        "",
        {},
        {"regex": "a", "json": "b"},
        {"xml": "a"},
        {"regex": "("},
        {"regex": "(" * 999},
        {"regex": "a" * 1001},
        {"regex": "a{99999999999999}"},
        {"json": ""},
        {"json": "a..b"},
        {"json": "a." + "9" * 5000},
        {"regex": "\ud800"},
        {"\udfff": "a"},
    ],
)
def test_what_cannot_be_used_names_the_field(answer):
    with pytest.raises(FieldError) as error:
        parse_rule(answer)
    assert error.value.field == "tree.answer"


def test_nested_repeats_do_not_make_a_pattern_large():
    assert parse_rule({"regex": "((((a{60000}){60000}){60000}){60000})"}).kind == "regex"
    assert parse_rule({"regex": "[[a]"}).kind == "regex"


@pytest.mark.parametrize(
    ("answer", "text", "end"),
    [
        ("auto", r"so \boxed{\frac{1}{2}} and", 22),
        ("boxed", r"so \boxed{\frac{1}{2}", None),
        ({"json": "a"}, '{"b": {"a": 1}} {"a": 2} x', 24),
        ({"regex": r"\d+"}, "12", None),
        ("last_number", "12", None),
        ("none", r"\boxed{1}", None),
    ],
)
def test_only_what_cannot_grow_stops_a_path(answer, text, end):
    watch = AnswerWatch(answer)
    assert watch(text, 0) == end
    assert watch.can_stop == (answer in ("auto", "boxed") or "json" in answer)


def test_importing_answers_loads_no_algebra():
    code = "import sys, treepo.answers.reader; print({'sympy', 'math_verify'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
