"""docs/configuration.md's tables: the options of `tree`, and the variables of a server.

`python -m tools.options` prints them between their marks; a test holds the page against them.
A further table is a function in `TABLES`.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from treepo.config import TreeConfig
from treepo_server.launch.options import FLAGS, variable
from treepo_server.settings.capacity import Capacity
from treepo_server.settings.limits import PREFIX, Limits


def options() -> str:
    """One row per field of `TreeConfig`, in the order of the class."""
    rows = ["| field | default | allowed | meaning |\n|---|---|---|---|\n"]
    for name, field in TreeConfig.model_fields.items():
        extra = field.json_schema_extra
        allowed = str(extra["allowed"]) if isinstance(extra, dict) else ""
        default = json.dumps(field.default).replace("[]", "[ ]")
        rows.append(f"| `{name}` | `{default}` | {allowed} | {field.description} |\n")
    return "".join(rows)


def variables() -> str:
    """One row per flag of `treepo serve` that sets a variable."""
    defaults = asdict(Limits()) | asdict(Capacity())
    rows = ["| variable | flag of `treepo serve` | default | meaning |\n|---|---|---|---|\n"]
    for flag, meaning in FLAGS.items():
        default = defaults[variable(flag).removeprefix(PREFIX).lower()]
        shown = "none" if default is None else f"{default:g}"
        rows.append(f"| `{variable(flag)}` | `--{flag}` | {shown} | {meaning} |\n")
    return "".join(rows)


TABLES = {"options": options, "variables": variables}


def marked(name: str) -> str:
    """A table between its marks."""
    return f"<!-- {name} -->\n{TABLES[name]()}<!-- /{name} -->\n"


if __name__ == "__main__":
    print("\n".join(map(marked, TABLES)), end="")
