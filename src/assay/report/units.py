"""Figures for people: three significant digits and a unit that fits."""

from __future__ import annotations

import math

from assay.schema import CheckpointRef, Metric

_SECONDS = ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))
_BYTES = ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB"))
_WHOLE = 99.95  # rounds to a hundred, and needs no decimals from there on
_LARGE, _DECIMALS = 1e9, 5
_TINY = 0.01


def number(value: float) -> str:
    """Three significant digits; whole from a hundred on, with an exponent where zeros would have to be counted."""
    size = abs(value)
    if size == 0:
        return "0"
    if size >= _WHOLE:
        return f"{value:,.0f}" if size < _LARGE else f"{value:.2e}"
    # Rounding may carry: 9.996 has one decimal fewer than its digits say.
    decimals = 2 - math.floor(math.log10(float(f"{size:.2e}")))
    return f"{value:.{decimals}f}" if decimals <= _DECIMALS else f"{value:.2e}"


def duration(seconds: float) -> str:
    """Seconds, milliseconds or microseconds."""
    factor, unit = next((each for each in _SECONDS if abs(seconds) >= each[0]), _SECONDS[-1])
    return f"{number(seconds / factor)} {unit}"


def amount(size: float) -> str:
    """Bytes, KiB, MiB or GiB."""
    factor, unit = next((each for each in _BYTES if abs(size) >= each[0]), (1, "B"))
    return f"{number(size / factor)} {unit}"


def quantity(metric: Metric) -> str:
    """A figure with the unit that suits it."""
    if metric.unit == "s":
        return duration(metric.value)
    if metric.unit == "B":
        return amount(metric.value)
    return f"{number(metric.value)} {metric.unit}"


def figure(metric: Metric) -> str:
    """The same, marked where it did not settle."""
    return flag(metric) + quantity(metric)


def flag(metric: Metric) -> str:
    """The mark of a figure that did not settle."""
    return "" if metric.stable else "~"


def shared_unit(unit: str, largest: float = math.inf) -> tuple[float, str]:
    """What a column of figures is divided by, and its unit then: ms for seconds, MiB for bytes.

    Args:
        largest: of the figures; where it is tiny in that unit, the column has a smaller one.
    """
    if unit == "s":
        return (1e-3, "ms") if largest >= _TINY * 1e-3 else (1e-6, "µs")
    if unit == "B":
        return (2.0**20, "MiB") if largest >= _TINY * 2**20 else (1.0, "B")
    return 1.0, unit


def error(value: float) -> str:
    """A relative error or its bound."""
    return f"{value:.1e}"


def name(checkpoint: CheckpointRef) -> str:
    """A checkpoint's name, with the beginning of its commit's hash if it is of the hub."""
    return checkpoint.name + (f"@{checkpoint.revision[:8]}" if checkpoint.revision else "")


def weights(checkpoint: CheckpointRef) -> str:
    """Enough of the hash to tell checkpoints apart."""
    return checkpoint.sha256[:8]


def plain(text: str) -> str:
    """One line without control characters: what a report holds may come from anywhere."""
    if not text.isprintable():
        text = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(text.split())
