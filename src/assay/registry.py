"""Finds families and backends by file name, without importing them, and those of other packages by entry point."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from assay.errors import UsageError, unknown


@cache
def sources(group: str, package: str, helpers: frozenset[str]) -> dict[str, str]:
    """Name to `module:attribute` for a package's own files and for the entry points of a group.

    Args:
        group: the entry-point group, `assay.families` or `assay.backends`.
        package: the package whose files are listed; a file's name is its name with `-` for `_`.
        helpers: files of the package that are no members.
    """
    folder = str(Path(__file__).parent / package.rpartition(".")[2])
    attribute = group.rpartition(".")[2]
    attribute = {"families": "FAMILY", "backends": "BACKEND"}[attribute]
    found = {
        module.name.replace("_", "-"): f"{package}.{module.name}:{attribute}"
        for module in pkgutil.iter_modules([folder])
        if module.name not in helpers
    }
    for entry in entry_points(group=group):
        if entry.name in found:
            raise UsageError(f"the entry point {entry.name!r} of {group} ({entry.value}) names one that exists already")
        found[entry.name] = entry.value
    return found


def load(kind: str, name: str, known: dict[str, str]) -> Any:
    """Import the member of that name.

    Raises:
        UsageError: no such name, with the nearest ones, or a plugin that cannot be imported.
    """
    if name not in known:
        raise unknown(kind, name, known)
    module, _, attribute = known[name].partition(":")
    try:
        return getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UsageError(f"{kind} {name!r} ({known[name]}) cannot be loaded: {error}") from error
