"""The page of options is the code's."""

from pathlib import Path

from tools.options import table

PAGE = Path(__file__).parents[2] / "docs" / "configuration.md"


def test_the_table_of_options_is_generated_from_the_config():
    text = PAGE.read_text()
    shown = text.split("<!-- options -->\n")[1].split("<!-- /options -->")[0]
    assert shown == table(), "run `python -m tools.options` and paste its output"
