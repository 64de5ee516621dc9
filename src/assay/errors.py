"""Errors that are for people: one clear line, no traceback."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """A user's mistake: what was tried, what was found, what to do. Exit code 2."""


class Unavailable(Exception):
    """The hardware or driver that a backend needs is not here.

    Args:
        reason: one sentence.
        looked_for: what was looked for and not found, one line each.
    """

    def __init__(self, reason: str, looked_for: Iterable[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.looked_for = tuple(looked_for)


def unknown(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that does not exist, with the nearest ones that do."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(names)}"
    return UsageError(f"unknown {kind} {name!r}; {hint}")


def counted(number: int, what: str) -> str:
    """A number of things."""
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def listed(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and whether there are more."""
    names = list(names)
    return ", ".join((*names[:most], "...") if len(names) > most else names)
