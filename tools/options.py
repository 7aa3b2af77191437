"""docs/configuration.md's table of `tree` options, from `TreeConfig` itself.

`python -m tools.options` prints it; a test holds the page against it.
"""

from __future__ import annotations

import json

from treepo.config import TreeConfig

BEGIN = "| field | default | allowed | meaning |\n|---|---|---|---|\n"


def table() -> str:
    """One row per field, in the order of the class."""
    rows = []
    for name, field in TreeConfig.model_fields.items():
        extra = field.json_schema_extra
        allowed = str(extra["allowed"]) if isinstance(extra, dict) else ""
        default = json.dumps(field.default).replace("[]", "[ ]")
        rows.append(f"| `{name}` | `{default}` | {allowed} | {field.description} |\n")
    return BEGIN + "".join(rows)


if __name__ == "__main__":
    print(table(), end="")
