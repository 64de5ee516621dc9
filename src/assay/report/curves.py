"""What grows: throughput over the batch size, and time over the length of an input."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from assay.schema import Cell, Metric, Workload


@dataclass(frozen=True)
class Curve:
    """A row of growing workloads, the measured one first.

    Attributes:
        name: in words.
        axis: what grows, in words.
        sizes: how far, ascending.
        values: what was measured there.
        unit: of the values; those in seconds are better lower, all others higher.
    """

    name: str
    axis: str
    sizes: tuple[float, ...]
    values: tuple[float, ...]
    unit: str


def curves(cell: Cell) -> Iterator[Curve]:
    """The curves of a cell, as far as it was measured."""
    item = cell.metrics["throughput"].unit if "throughput" in cell.metrics else "rows/s"
    decodes = "decoding" in cell.swept
    yield from _throughput(cell, "decoding", "decoding throughput", cell.metrics.get("time_per_output_token"), item)
    yield from _throughput(
        cell, "batch", "throughput of one pass" if decodes else "throughput", cell.metrics.get("latency"),
        "rows/s" if decodes else item,
    )  # fmt: skip
    latency, longer = cell.metrics.get("latency"), cell.swept.get("length", ())
    if latency and longer:
        axis = "seconds of sound" if longer[0].workload.seconds else "length"
        sizes = tuple(_length(each.workload) for each in longer)
        values = (latency.value, *(each.time.value for each in longer))
        yield Curve("latency", axis, (sizes[0] / 2, *sizes), values, "s")  # each is twice as long as the one before


def _throughput(cell: Cell, series: str, name: str, single: Metric | None, unit: str) -> Iterator[Curve]:
    points = cell.swept.get(series, ())
    if single and points and single.value:
        sizes = (1, *(each.workload.batch for each in points))
        times = (single.value, *(each.time.value for each in points))
        values = tuple(size / time for size, time in zip(sizes, times, strict=True))
        yield Curve(name, "batch size", sizes, values, unit)


def _length(workload: Workload) -> float:
    return workload.seconds or workload.length
