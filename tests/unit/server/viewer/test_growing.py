"""A tree while it grows in the page: what is selected, said and shown meanwhile, and afterwards."""

import pytest

from tests.support import saved
from tests.support.played_stream import PlayedStream, ended, opened, said


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


def test_the_selection_stays_with_its_segment_where_an_earlier_path_forks(tab, stream):
    stream.ask()
    both = [opened(0), opened(1)]
    stream.tell(said(0, "To multiply, "), said(1, "Well, 408."), ended(1, "408"), opened=both)
    tab.page.click("#canvas", position=tab.point(1))
    inherited = said(2, "To mul", num_tokens=5)
    stream.tell(said(0, "split 24."), inherited, said(2, "guess"), opened=[opened(2, 0, 5)])
    assert tab.page.evaluate("view.tree.nodes.map(node => node.path)") == [0, 0, 1, 2]
    assert tab.page.evaluate("view.selected") == 2
    assert tab.text("#path .here") == "Well, 408."
    assert tab.text("#path-head").startswith("1 of 1: answer \u2068408\u2069")


def test_a_path_that_is_read_while_it_grows_is_read_to_its_answer(tab, stream):
    stream.ask()
    stream.tell(said(0, "Well, "), opened=[opened(0)])
    tab.page.click("#canvas", position=tab.point(0))
    assert tab.text("#path-head").startswith("Not completed (growing)")
    stream.tell(said(0, "408."), ended(0, "408"))
    assert tab.text("#path") == "Well, 408."
    assert tab.text("#path-head").startswith("1 of 1: answer \u2068408\u2069")


def test_the_place_in_a_text_and_the_focus_stay_while_a_tree_grows(tab, stream):
    stream.ask()
    both = [opened(0), opened(1)]
    stream.tell(said(0, "word " * 4000), said(1, "Well, 398."), ended(1, "398"), opened=both)
    tab.page.click("#canvas", position=tab.point(0))
    tab.page.evaluate("byId('path').scrollTop = 300")
    tab.page.focus("#votes button")
    tab.page.evaluate("window.focused = document.activeElement")
    stream.tell(said(0, "So 408."))
    assert tab.page.evaluate("document.activeElement === focused")
    stream.tell(ended(0, "408"))
    assert tab.page.locator("#votes button").all_inner_texts() == ["408", "398"]
    assert tab.page.evaluate("document.activeElement.textContent") == "398"
    assert tab.page.evaluate("byId('path').scrollTop") == 300
    assert tab.text("#path").endswith("word So 408.")


def listed(tab):
    return [title.split("\n")[0] for title in tab.page.locator("#trees button").all_inner_texts()]


def test_a_saved_tree_can_be_looked_at_while_another_grows(tab, stream):
    tab.open("saved.json", saved.response())
    stream.ask()
    stream.tell(said(0, "Well, "), opened=[opened(0)])
    assert listed(tab) == ["What is 6 * 68?", "saved.json"]
    shown = "#trees [aria-current]"
    assert tab.text(shown).startswith("What is 6 * 68?")
    tab.page.click("#trees button >> nth=1")
    stream.tell(said(0, "398."))
    assert tab.text("#headline") == "Answer: \u2068408\u2069"
    assert tab.text(shown).startswith("saved.json")
    tab.page.click("#trees button >> nth=0")
    assert tab.text("#headline") == "Growing"
    assert tab.page.evaluate("view.tree.nodes[0].text") == "Well, 398."
    tab.page.click("#trees button >> nth=1")
    stream.finish(saved.report())
    assert listed(tab) == ["What is 6 * 68?", "saved.json"]
    assert tab.text(shown).startswith("saved.json")
    assert tab.page.evaluate("document.activeElement.ariaCurrent") == "true"


def test_a_tree_that_was_stopped_says_so_and_shows_how_far_it_came(tab, stream):
    stream.ask()
    stream.tell(said(0, "398."), ended(0, "398"), said(1, "Well, "), opened=[opened(0), opened(1)])
    assert tab.text("#headline") == "So far: \u2068398\u2069"
    tab.page.click("#canvas", position=tab.point(1))
    tab.page.click("#stop")
    tab.until("growing === null")
    assert tab.text("#headline") == "Until it was stopped: \u2068398\u2069"
    assert tab.text("#path-head").startswith("Not completed (stopped)")
    assert "weight" not in tab.text("#stage")
    assert listed(tab) == []


def test_nothing_is_left_of_a_tree_that_never_began(tab, stream):
    stream.ask()
    tab.page.click("#stop")
    tab.until("growing === null")
    assert tab.page.is_visible("#empty")
    assert listed(tab) == []


def test_what_the_pointer_showed_of_a_tree_goes_with_it(tab, stream):
    stream.ask()
    stream.tell(said(0, "Well, "), opened=[opened(0)])
    tab.page.hover("#canvas", position=tab.point(0))
    assert "Well, " in tab.text("#tip")
    stream.finish(saved.report())
    assert tab.page.is_hidden("#tip")


def test_progress_is_said_now_and_then_and_the_answer_at_the_end(tab, stream):
    tab.page.evaluate(
        """() => {
            window.sentences = [];
            const note = () => sentences.push(byId("status").textContent);
            new MutationObserver(note).observe(byId("status"), { childList: true });
        }"""
    )
    stream.ask()
    stream.tell(opened=[opened(0)])
    for _ in range(10):
        stream.tell(said(0, "hm "))
    stream.finish(saved.report())
    sentences = tab.page.evaluate("sentences")
    assert sentences[:2] == ["Growing…", "Growing: 1 live, 0 finished, 9 tokens"]
    assert sentences[-1] == "Answer: \u2068408\u2069"
    assert len(sentences) < 10
