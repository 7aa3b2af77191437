"""The tables of options and variables are the code's."""

from pathlib import Path

import pytest

from tools.options import TABLES, marked

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.mark.parametrize("name", TABLES)
def test_the_tables_are_generated_from_the_code(name):
    assert marked(name) in PAGE.read_text(), "run `python -m tools.options` and paste its output"
