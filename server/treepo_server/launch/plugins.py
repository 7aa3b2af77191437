"""The value of `VLLM_PLUGINS` under `treepo serve`: a pure function of what is installed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

PLUGIN = "treepo"
ENDPOINT_GROUP = "vllm.endpoint_plugins"


def plugin_names(chosen: str | None, installed: Mapping[str, Iterable[str]]) -> str:
    """The value of `VLLM_PLUGINS` that adds this package's plugin and takes none away.

    vLLM loads endpoint plugins only when they are named, and as soon as one name is given it
    loads no plugin of any other kind that is not. So every installed one is named, except other
    packages' endpoint plugins: those add routes, and only the user may open them.

    Args:
        chosen: The variable as the user set it, None if unset.
        installed: Names of the installed plugins by entry-point group.
    """
    if chosen is not None:
        names = [name for name in chosen.split(",") if name]
        return ",".join(dict.fromkeys([*names, PLUGIN]))
    others = {
        name
        for group, names in installed.items()
        if group.startswith("vllm.") and group.endswith("_plugins") and group != ENDPOINT_GROUP
        for name in names
    }
    return ",".join([*sorted(others - {PLUGIN}), PLUGIN])
