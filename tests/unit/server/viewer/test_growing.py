"""A tree while it grows in the page: what is selected, said and shown meanwhile, and afterwards."""

import pytest

from tests.support.played_stream import PlayedStream, opened, said


@pytest.fixture
def stream(tab):
    return PlayedStream(tab)


def test_the_first_and_last_answer_are_nowhere_before_a_path_has_ended(tab, stream):
    stream.ask()
    stream.tell(said(0, "To multiply, "), opened=[opened(0)])
    tab.page.focus("#canvas")
    for key in ("Home", "End"):
        tab.page.keyboard.press(key)
        assert tab.page.evaluate("view.selected") is None
    tab.page.keyboard.press("ArrowRight")
    assert tab.page.evaluate("view.selected") == 0


def test_one_tree_grows_at_a_time(tab, stream):
    stream.ask()
    tab.page.press("#question", "Control+Enter")
    stream.tell(said(0, "To multiply, "), opened=[opened(0)])
    assert tab.page.evaluate("asked") == 1
    tab.page.click("#stop")
    tab.until("growing === null")
    assert "Stopped" in tab.text("#status")


def test_the_right_key_takes_back_what_was_said_of_the_wrong_one(tab, stream):
    tab.page.evaluate("key = 'secret'")
    tab.page.fill("#key", "wrong")
    tab.page.press("#key", "Tab")
    tab.page.wait_for_selector("#status.wrong")
    tab.page.fill("#key", "secret")
    tab.page.press("#key", "Tab")
    tab.page.wait_for_selector("#status:not(.wrong)", state="attached")
    assert tab.text("#status") == ""
    assert tab.page.input_value("#model") == "tiny"


def test_a_path_that_is_opened_late_is_dashed_at_once(tab, stream):
    stream.ask()
    late = opened(1, is_late=True)
    stream.tell(said(0, "To multiply, "), said(1, "Well, "), opened=[opened(0), late])
    assert tab.page.evaluate("view.tree.nodes.map(node => node.isLate)") == [False, True]
    assert "opened late" in tab.text("#legend")
