"""The page as a file, in a real browser."""

import pytest

from tests.support.browser import Tab, chromium
from treepo_server import viewer


@pytest.fixture(scope="module")
def browser():
    with chromium() as running:
        yield running


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("viewer") / "treepo.html"
    path.write_text(viewer.document(), encoding="utf-8")
    return path.as_uri()


@pytest.fixture
def make_tab(browser, file):
    contexts = []

    def make(**options):
        contexts.append(browser.new_context(**options))
        tab = Tab(contexts[-1].new_page())
        tab.page.goto(file)
        return tab

    yield make
    for context in contexts:
        context.close()


@pytest.fixture
def tab(make_tab, file):
    opened = make_tab(viewport={"width": 1600, "height": 1000})
    yield opened
    assert opened.errors == []
    assert set(opened.requested) == {file}
