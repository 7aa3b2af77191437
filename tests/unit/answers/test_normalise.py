"""Laws of what is one vote, as far as no algebra is needed."""

import time
from fractions import Fraction

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from treepo.answers.normalise import LONGEST_CHARS, is_formula, plain_key, tidy

integers = st.integers(-(10**12), 10**12)
positive = st.integers(1, 10**6)


@given(numerator=integers, denominator=positive)
def test_every_spelling_of_a_fraction_is_one_vote(numerator, denominator):
    value = str(Fraction(numerator, denominator))
    for text in (
        f"{numerator}/{denominator}",
        f" {numerator} / {denominator} ",
        f"\\frac{{{numerator}}}{{{denominator}}}",
        f"$\\dfrac{{{numerator}}}{{{denominator}}}$",
        f"\\(\\tfrac{{{2 * numerator}}}{{{2 * denominator}}}\\).",
        f"x = {numerator}/{denominator}",
        f"**{numerator:,}/{denominator:,}**",
    ):
        assert plain_key(text) == value


@given(digits=integers, places=st.integers(0, 6))
def test_decimals_are_exact(digits, places):
    value = Fraction(digits, 10**places)
    whole, rest = divmod(abs(digits), 10**places)
    text = f"{'-' if digits < 0 else ''}{whole:,}.{rest:0{places}d}00"
    assert plain_key(text) == str(value)
    assert plain_key(f"{digits}e-{places}") == str(value)
    assert plain_key(f"{digits} \\times 10^{{-{places}}}") == str(value)


@given(a=st.fractions(), b=st.fractions())
def test_different_numbers_are_different_votes(a, b):
    assume(a != b)
    assert plain_key(str(a)) != plain_key(str(b))


@pytest.mark.parametrize(
    ("texts", "key"),
    [
        (
            ["5", "5.", "$5", r"\$5", "5%", r"5\%", "5 cm", r"5\text{ cm}^2", "5°", r"5^{\circ}"],
            "5",
        ),
        (["+5", "(5)", r"5\text{ apples}", "5.0 km", r"\theta = 5", "f(x) = 5", "x_1=5"], "5"),
        (["-5", "- 5", "−5", "-$5", r"-\$5.00"], "-5"),
        (["3/2", "1 1/2", r"1\frac{1}{2}", r"1\frac12", "1.5"], "3/2"),
        (["1000", "1,000", r"1{,}000", r"1\,000", "1e3"], "1000"),
        (["B", "b", "(B)", "B.", r"\text{(B)}", r"\textbf{B}", "**B**"], "b"),
        (["New York", " new   york. ", r"\text{New York}", '"New York"'], "new york"),
        (["3:2", "3 : 2"], "3:2"),
        (["0", "-0", "0.00", "0/7"], "0"),
    ],
)
def test_layout_units_and_case_do_not_matter(texts, key):
    assert {plain_key(text) for text in texts} == {key}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("5 am", "5 pm"),
        (r"5\text{ am}", r"5\text{ pm}"),
        ("5", "5 million"),
        ("3-2", "2-1"),
        ("2024-05-06", "2024-06-05"),
        ("1/2/2024", "2/1/2024"),
        ("12:30", "2:5"),
        ("listen", "silent"),
        ("5 or 6", "5"),
    ],
)
def test_answers_that_may_differ_stay_two_votes(one, other):
    assert None not in {plain_key(one), plain_key(other)}
    assert plain_key(one) != plain_key(other)


@pytest.mark.parametrize(
    "text",
    [r"\sqrt{2}", "x+1", "2x", "(1,2)", "1,2,3", "x^2", r"2\pi", "x>3", r"x=1 \text{ or } x=2"],
)
def test_formulas_are_left_to_algebra(text):
    assert plain_key(text) is None


@given(st.text(max_size=LONGEST_CHARS))
def test_any_text_has_a_key_or_is_a_formula(text):
    key = plain_key(text)
    assert key is not None or is_formula(tidy(text))
    assert plain_key(text) == key


@pytest.mark.parametrize(
    "piece", ["$", "1,", "(", r"\text{", "1 ", "{,}", r"\,", "a=", "- ", "1-", "x "]
)
def test_no_answer_takes_long(piece):
    begin = time.process_time()
    plain_key((piece * LONGEST_CHARS)[:LONGEST_CHARS])
    assert time.process_time() - begin < 0.2
