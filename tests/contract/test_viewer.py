"""The page that the server sends grows a tree live, asks for a key, and reaches nobody else."""

import json
import urllib.request

import pytest

from tests.contract.conftest import MESSAGES
from tests.support.browser import Tab, chromium
from treepo_server import viewer

EVEN = {"width": 4, "branching": "even", "segment_tokens": 32, "root_branching": 2}


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture
def tab(browser, server):
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    tab = Tab(context.new_page())
    tab.page.goto(f"{server.url}/treepo")
    yield tab
    context.close()
    assert all(url.startswith(server.url) for url in tab.requested)


def grow(tab, max_tokens, **options):
    tab.page.fill("#question", "What is 1 + 1?")
    tab.page.fill("#max-tokens", str(max_tokens))
    tab.page.fill("#options", json.dumps({**EVEN, **options}))
    tab.page.click("#send")


def test_the_page_that_is_served_is_the_file(server):
    with urllib.request.urlopen(f"{server.url}/treepo") as answer:
        assert answer.read().decode() == viewer.document()
        policy = answer.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "connect-src 'self'" in policy
    assert "unsafe" not in policy


def test_a_tree_is_drawn_while_it_grows_and_kept_when_it_has_ended(tab):
    grow(tab, 1200)
    # What is known of a tree that has not ended: its forks, and texts behind them.
    tab.page.wait_for_selector("#headline:text-matches('Growing|So far')")
    growing = (
        "view.tree?.id === 'live' ? view.tree.nodes.filter(n => n.parent !== null).length : -1"
    )
    seen = 0
    while not seen and tab.page.get_attribute("#stage", "aria-busy") == "true":
        seen = max(seen, tab.page.evaluate(growing))
    assert seen > 0
    tab.page.wait_for_selector('#stage[aria-busy="false"]', timeout=120_000)
    assert tab.errors == []
    assert tab.page.locator("#trees button").count() == 1
    assert tab.page.evaluate("view.tree.leaves.length") == 4
    # A segment may be an end-of-sequence token alone, or so sure that its entropy is told as 0.
    whole = "view.tree.nodes.every(node => node.tokens > 0 && Number.isFinite(node.entropy))"
    assert tab.page.evaluate(whole)
    assert tab.page.evaluate("view.tree.nodes.some(node => node.text && node.entropy > 0)")
    tab.page.select_option("#clock", "seconds")


def test_a_tree_that_is_stopped_ends_in_the_engine(tab, server):
    grow(tab, 3000, width=16)
    tab.page.wait_for_selector("#status:text('live')")
    tab.page.click("#stop")
    server.wait_for(0, limit_s=20)
    assert "Stopped" in tab.text("#status")


def test_what_the_server_refuses_is_said(tab):
    grow(tab, 100, width=1000)
    tab.page.wait_for_selector("#status.wrong")
    assert "tree.width" in tab.text("#status")


def test_the_key_is_asked_for_where_one_is_set_and_leaves_with_the_tab(tab, server):
    wanted = []

    def guard(route):
        wanted.append(route.request.headers.get("authorization"))
        if wanted[-1] == "Bearer secret":
            return route.continue_()
        return route.fulfill(status=401, json={"error": "Unauthorized"})

    tab.page.route("**/v1/**", guard)
    tab.page.reload()
    tab.page.wait_for_selector("#key-row:not([hidden])")
    tab.page.fill("#key", "secret")
    grow(tab, 40)
    tab.page.wait_for_selector('#stage[aria-busy="false"] #figures :text("complete")')
    assert wanted[0] is None
    assert wanted[-1] == "Bearer secret"
    assert tab.page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
    assert server.url + "/v1/chat/completions" in tab.requested


@pytest.mark.parametrize("width", [2, 4])
def test_a_stream_of_all_paths_tells_where_each_forked_off(client, width):
    tree = {**EVEN, "width": width, "include": ["nodes"]}
    stream = client.chat.completions.create(
        model="tiny", messages=MESSAGES, n=width, seed=5, max_tokens=150, stream=True,
        extra_body={"tree": tree, "return_token_ids": True},
    )  # fmt: skip
    opened, lengths, report = {}, {}, None
    for chunk in stream:
        told = getattr(chunk, "tree", None) or {}
        for path in told.get("progress", {}).get("opened", ()):
            assert path["index"] not in opened
            opened[path["index"]] = path
        report = told if "trajectories" in told else report
        for choice in chunk.choices:
            ids = choice.model_extra.get("token_ids") or []
            assert not ids or choice.index in opened
            lengths[choice.index] = lengths.get(choice.index, 0) + len(ids)
    assert sorted(opened) == list(range(width))
    for choice in report["choices"]:
        nodes = [report["nodes"][number] for number in choice["path"]]
        own = next(node for node in nodes if node["path"] == nodes[-1]["path"])
        assert opened[choice["index"]]["start"] == own["start"]
        assert lengths[choice["index"]] == nodes[-1]["start"] + nodes[-1]["num_tokens"]
        parent = opened[choice["index"]]["parent"]
        assert (parent is None) == (own["parent"] is None)
