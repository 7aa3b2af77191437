"""Links between the pages lead somewhere, and no page is out of reach of the README."""

import re

import pytest

from tests.docs.pages import PAGES, ROOT, text_of

LINK = re.compile(r"\]\((?!https?:)([^)#\s]+)(?:#[^)]*)?\)")


def linked(page):
    """The files that a page links to."""
    return [(ROOT / page).parent.joinpath(link).resolve() for link in LINK.findall(text_of(page))]


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_files(page):
    assert [file for file in linked(page) if not file.exists()] == []


def test_every_page_is_reached_from_the_readme():
    reached, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page in reached or page.suffix != ".md":
            continue
        reached.add(page)
        todo += linked(page.relative_to(ROOT))
    assert {ROOT / page for page in PAGES} <= reached


def test_the_figures_of_when_not_are_those_of_the_benchmarks():
    measured = set(text_of("docs/benchmarks.md").splitlines())
    rows = re.findall(r"^\| (?:entropy|even).*\|$", text_of("docs/when_not.md"), re.MULTILINE)
    assert rows
    assert set(rows) <= measured
