"""The page as a file, without any server: saved trees, hostile texts, keys, narrow and wide."""

import json

import pytest

from tests.support import saved
from treepo.rollout.record import Rollout, encode
from treepo.tree import Finish, Node, Trajectory, Tree, TreeFinish

HOSTILE = [
    "<img src=x onerror='window.hacked=1'>",
    "</script><script>window.hacked=1</script>",
    "\u202eevil \u0627\u0644\u062c\u0648\u0627\u0628 42",
    "x" * 200_000,
    "<b>bold</b>&lt;javascript:alert(1)",
]


def votes(tab):
    return [row.split() for row in tab.page.locator("#votes tbody tr").all_inner_texts()]


def test_a_saved_response_is_drawn_with_its_vote(tab):
    tab.open("saved.json", saved.response())
    assert "408" in tab.text("#headline")
    figures = tab.page.locator("#figures").inner_text().split()
    assert {"67%", "2.6", "139", "16%", "exact", "complete"} <= set(figures)
    assert votes(tab) == [["408", "2", "67%"], ["398", "1", "33%"]]
    assert tab.text("#notes") == "one path was lost"
    assert "saved.json" in tab.text("#trees")
    assert tab.text("#path") == "To multiply, split 24. So 408."
    assert tab.page.evaluate("view.layout.alive") == [
        [0, 2],
        [32, 3],
        [40, 3],
        [45, 2],
        [52, 1],
        [64, 1],
        [74, 0],
    ]


def test_hovering_shows_a_segment_and_a_click_reads_its_path(tab):
    tab.open("saved.json", saved.response())
    tab.page.hover("#canvas", position=tab.point(3))
    assert "guess 398." in tab.text("#tip")
    assert "entropy 1.90 nats" in tab.text("#tip")
    tab.page.click("#canvas", position=tab.point(3))
    assert tab.text("#path") == "To multiply, guess 398."
    assert tab.text("#path-head").startswith("2 of 3: answer \u2068398\u2069, weight 0.333")
    tab.page.click("#canvas", position=tab.point(5))
    assert tab.text("#path") == "Well, 408.hm hm"
    assert tab.text("#path-head").startswith("Not completed (pruned)")


def test_an_inner_segment_is_read_to_the_winner(tab):
    tab.open("saved.json", saved.response())
    tab.page.click("#canvas", position=tab.point(0))
    assert tab.text("#path") == "To multiply, split 24. So 408."
    tab.page.click("text=Next")
    assert tab.text("#path") == "To multiply, guess 398."


def test_answers_are_found_by_text_and_by_a_click_on_the_vote(tab):
    tab.open("saved.json", saved.response())
    tab.page.fill("#search", "39")
    assert tab.text("#found") == "1 of 3 paths"
    assert tab.page.evaluate("[...view.found].sort()") == [0, 3]
    tab.page.click("#votes button >> nth=0")
    assert tab.text("#found") == "2 of 3 paths"
    assert tab.page.evaluate("[...view.found].sort()") == [0, 1, 2, 4]


def test_the_keyboard_reaches_and_reads_everything(tab):
    tab.open("saved.json", saved.response())
    reached = set()
    for _ in range(40):
        tab.page.keyboard.press("Tab")
        reached.add(tab.page.evaluate("document.activeElement.id"))
    assert {"open", "theme", "question", "send", "canvas", "search", "next", "path"} <= reached
    tab.page.focus("#canvas")
    for key in ("Escape", "ArrowRight", "ArrowRight", "ArrowRight"):
        tab.page.keyboard.press(key)
    assert tab.page.evaluate("view.selected") == 2
    assert "tokens 64 to 74" in tab.text("#spoken")
    tab.page.keyboard.press("ArrowLeft")
    tab.page.keyboard.press("ArrowDown")
    assert tab.page.evaluate("view.selected") == 3
    tab.page.keyboard.press("Enter")
    assert tab.page.evaluate("document.activeElement.id") == "path"
    tab.page.focus("#canvas")
    tab.page.keyboard.press("+")
    assert tab.page.evaluate("view.viewport.zoomY") == 1.5
    tab.page.keyboard.press("Escape")
    assert tab.page.evaluate("view.selected") is None


def test_hostile_texts_are_only_ever_texts(tab):
    tree = saved.report()
    for node, text in zip(tree["nodes"], HOSTILE, strict=False):
        node["text"] = text
    for vote, leaf, text in zip(tree["votes"], tree["trajectories"], HOSTILE, strict=False):
        vote["answer"] = vote["key"] = leaf["answer"] = leaf["key"] = text
    tree |= {"answer": HOSTILE[0], "notes": HOSTILE, "finish": HOSTILE[1]}
    tab.open(f"{HOSTILE[4]}.json", json.dumps({"tree": tree}))
    for number in range(6):
        tab.page.hover("#canvas", position=tab.point(number))
        tab.page.click("#canvas", position=tab.point(number))
    tab.page.click("#canvas", position=tab.point(2))
    assert tab.text("#path") == HOSTILE[0] + HOSTILE[1] + HOSTILE[2]
    assert HOSTILE[0] in tab.text("#headline")
    assert tab.page.evaluate("window.hacked") is None
    assert tab.page.locator("main img, main script, main b").count() == 0
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= 1600


def test_nothing_but_the_pages_own_code_runs(make_tab):
    tab = make_tab()
    tab.page.evaluate(
        """() => {
            const script = document.createElement("script");
            script.textContent = "window.hacked = 1";
            document.body.append(script);
            document.body.insertAdjacentHTML("beforeend", "<img src=x onerror='window.hacked=1'>");
        }"""
    )
    tab.page.wait_for_timeout(100)
    assert tab.page.evaluate("window.hacked") is None
    assert all("Content Security Policy" in error for error in tab.errors)


def test_a_rollout_file_is_read_line_by_line(tab):
    nodes = (
        Node(0, None, 0, 0, (5, 6, 7), (), (0.5, 0.25, 0.75)),
        Node(1, 0, 0, 3, (8,), mass=0.5, finish=Finish.EOS),
        Node(2, 0, 1, 3, (9, 9), mass=0.5, finish=Finish.EOS),
    )
    leaves = (
        Trajectory(1, Finish.EOS, 0.5, "one", "7", "7.0"),
        Trajectory(2, Finish.EOS, 0.5, "two", "8", "8"),
    )
    tree = Tree("t", (1,), nodes, leaves, TreeFinish.COMPLETE, weights_exact=True)
    lines = [
        encode(Rollout(f"k{i}", tree, {"prompt": f"question {i}"}, (1.0, 0.0))) for i in (1, 2)
    ]
    tab.open("trees.jsonl", b"".join(lines))
    titles = tab.page.locator("#trees .title").all_inner_texts()
    assert titles == ["question 1", "question 2"]
    assert tab.page.evaluate("view.tree.nodes[0].entropy") == 0.5
    tab.page.click("#canvas", position=tab.point(1))
    assert tab.text("#path") == "one"
    assert "reward 1" in tab.text("#path-head")
    assert votes(tab) == [["7.0", "1", "50%"], ["8", "1", "50%"]]


def test_a_recorded_stream_is_read_to_its_last_chunk(tab):
    chunks = ['data: {"choices":[]}', f"data: {saved.response()}", "data: [DONE]", ""]
    tab.open("stream.txt", "\n\n".join(chunks))
    assert len(votes(tab)) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("hello", "Line 1 is not JSON"),
        ('{"choices": []}', "neither a response"),
        ("", "is empty"),
        (saved.response(nodes=[{"id": 0, "parent": 3, "num_tokens": 1}]), "no earlier parent"),
        (saved.response(nodes=[{"id": 0, "num_tokens": "many"}]), "where a count belongs"),
    ],
)
def test_a_file_that_holds_no_tree_is_refused_in_words(tab, content, reason):
    tab.open("wrong.json", content)
    assert reason in tab.text("#status")
    tab.open("saved.json", saved.response())
    assert len(votes(tab)) == 2


def test_a_folder_that_is_dropped_is_refused_in_words(tab, tmp_path):
    tab.drop(tmp_path)
    tab.page.wait_for_selector("#status.wrong")
    assert tab.text("#status") != ""
    assert tab.page.get_attribute("#stage", "aria-busy") == "false"


def test_a_file_can_be_chosen_again(tab):
    for _ in range(2):
        tab.open("saved.json", saved.response())
        assert tab.page.evaluate("byId('file').value") == ""


def test_without_segments_the_trajectories_are_shown(tab):
    tree = saved.report()
    del tree["nodes"]
    tab.open("saved.json", json.dumps({"tree": tree}))
    assert tab.page.evaluate("view.tree.nodes.length") == 3
    assert "include" in tab.text("#notes")


def test_trees_are_kept_in_this_browser_until_they_are_forgotten(tab):
    tab.open("saved.json", saved.response())
    tab.page.reload()
    tab.page.click("#trees button")
    assert len(votes(tab)) == 2
    tab.page.click("#forget")
    tab.page.wait_for_selector("#forget", state="hidden")
    tab.page.reload()
    tab.page.evaluate("store.open()")
    assert tab.page.evaluate("store.memory.length") == 0
    assert tab.page.locator("#trees button").count() == 0


def test_ten_thousand_segments_are_drawn_and_searched(tab):
    tab.open("wide.json", saved.wide(10_000))
    tab.page.fill("#search", "9999")
    assert tab.text("#found") == "1 of 10000 paths"
    tab.page.focus("#canvas")
    tab.page.keyboard.press("End")
    assert tab.page.evaluate("view.selected") == 10_000
    for _ in range(20):
        tab.page.keyboard.press("+")
    x_and_y = tab.page.evaluate("[view.viewport.pxPerRow, view.viewport.pxPerToken]")
    assert min(x_and_y) > 10


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_the_page_fits_and_every_control_is_within_reach(make_tab, width, scheme):
    tab = make_tab(viewport={"width": width, "height": 800}, color_scheme=scheme)
    tab.open("saved.json", saved.response())
    assert tab.page.evaluate("document.documentElement.dataset.theme") == scheme
    assert tab.page.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.page.evaluate("canvas.clientWidth") > width * 0.5
    outside = tab.page.evaluate(
        """() => [...document.querySelectorAll("button, input, select, textarea, canvas")]
            .filter(e => e.offsetParent && e.type !== "file")
            .filter(e => e.getBoundingClientRect().right > innerWidth)
            .map(e => e.id)"""
    )
    assert outside == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1600])
def test_nothing_keeps_people_out(make_tab, width, scheme):
    tab = make_tab(viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert tab.barriers() == []
    tab.open("saved.json", saved.response())
    assert tab.barriers() == []
    tab.page.click("#votes button >> nth=0")
    assert tab.barriers() == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_has_the_focus_shows_it(make_tab, scheme):
    tab = make_tab(viewport={"width": 1600, "height": 1000}, color_scheme=scheme)
    tab.open("saved.json", saved.response())
    for _ in range(20):
        tab.page.keyboard.press("Tab")
        ring = tab.page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert ring == "solid", tab.page.evaluate("document.activeElement.outerHTML")


def test_the_theme_can_be_chosen_and_is_remembered(tab):
    seen = []
    for _ in range(3):
        tab.page.click("#theme")
        seen.append(tab.page.get_attribute("#theme", "aria-label"))
    assert seen == ["Colours: light", "Colours: dark", "Colours: as the system"]
    tab.page.click("#theme")
    tab.page.reload()
    assert tab.page.get_attribute("#theme", "aria-label") == "Colours: light"
