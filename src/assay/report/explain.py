"""One cell in words: every number that was looked at, its bound, and how the status follows from them."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from assay import backends
from assay.errors import unknown
from assay.evidence import LAYERS
from assay.matrix import Matrix, MatrixCell
from assay.measure.statistics import disturbance, spread
from assay.measure.throttling import CAUSES, described, lost
from assay.report import grid, units
from assay.report.curves import Curve, curves
from assay.report.selection import Selection
from assay.report.terminal import status_text
from assay.schema import OWN, Check, Diagnosis, Evidence, Precision, Status, Throttling, Verdict
from assay.status import PRECEDENCE, REQUIRED

_MARKS = {Verdict.PASSED: ("✔", "green"), Verdict.FAILED: ("✘", "red"), Verdict.NOT_JUDGED: ("?", "cyan")}
_LOG_LINES = 12


def find(matrix: Matrix, family: str, backend: str, precision: str | None = None) -> list[MatrixCell]:
    """The cells of a row and a column: those that were run, if any; of one precision, if it is named.

    There are several where checkpoints, precisions or machines differ.

    Raises:
        UsageError: the matrix has no such row or column, or none of its cells there has that precision.
    """
    found = list(Selection((family,), (backend,)).of(matrix).cells)
    found = [cell for cell in found if cell.session] or found
    if precision is None:
        return found
    if not (those := [cell for cell in found if cell.precision == precision]):
        raise unknown(f"precision of {family} on {backend}", precision, {str(cell.precision) for cell in found})
    return those


def print_cells(cells: Sequence[MatrixCell], file: TextIO | None = None, *, width: int | None = None) -> None:
    """Write each cell's chain of evidence, from the raw numbers to the status.

    Args:
        file: standard output by default. Colour is left out where it is no terminal, or NO_COLOR is set.
        width: that of the terminal by default.
    """
    console = Console(file=file, width=width, highlight=False, emoji=False, markup=False)
    for number, cell in enumerate(cells):
        if number:
            console.print()
        for part in _parts(cell):
            console.print(part)


def again(cell: MatrixCell) -> str:
    """The command that runs a cell once more, with inputs drawn anew."""
    has_session = backends.built_in(cell.backend)
    words = ["nox", "-s", cell.backend, "--"] if has_session else ["assay", "run", "--backend", cell.backend]
    checkpoint = cell.checkpoint
    if cell.size == OWN and checkpoint:
        source = checkpoint.name + (f"@{checkpoint.revision}" if checkpoint.revision else "")
        words += ["--model", f"{cell.family}={source}"]
    else:
        words += ["--family", cell.family]
        words += [] if cell.size == "tiny" else ["--size", cell.size]
    words += [] if cell.precision is Precision.F32 else ["--precision", cell.precision]
    words += ["--device", cell.session.asked_device] if cell.session and cell.session.asked_device else []
    return shlex.join(map(units.plain, words))


def commands(cell: MatrixCell) -> Iterator[tuple[str, str]]:
    """What reproduces a cell: a phrase for each command, and the command."""
    yield "Once more, with inputs drawn anew", again(cell)
    if "challenge" in cell.seeds and cell.session:
        report = units.plain(f"reports/sessions/{cell.backend}-{cell.session.id}.json")
        yield "Once more, with the same inputs", f"{again(cell)} --replay {shlex.quote(report)}"


def _parts(cell: MatrixCell) -> Iterator[RenderableType]:
    title = grid.about(cell.family)[0]
    yield Text.assemble((f"{title} on {units.plain(cell.backend)}: ", "bold"), status_text(cell.status))
    yield from _lines(_what(cell), style="dim")
    if cell.failure:
        yield from _failure(cell)
    if cell.unavailable:
        yield from _lines([f"Looked for: {what}" for what in cell.unavailable.looked_for])
    for evidence in cell.evidence:
        yield Text()
        yield from _layer(evidence)
    if cell.diagnosis:
        yield Text()
        yield from _diagnosis(cell.diagnosis)
    if cell.samples:
        yield Text()
        yield Text("What was sampled", style="bold")
        yield from _lines(map(_sampled, cell.samples.items()))
        if cell.throttling:
            yield from _lines([_throttled(cell.throttling)])
    if grown := list(curves(cell)):
        yield Text()
        yield Text("What grew", style="bold")
        yield from _lines(map(_grown, grown))
    yield Text()
    yield Text(f"{_conclusion(cell)} (docs/judgement.md has the rules.)")
    for what, command in commands(cell):
        yield Text(f"{what}: {command}")


def _what(cell: MatrixCell) -> Iterator[str]:
    parts = [cell.size, str(cell.precision), cell.device or ""]
    yield ", ".join(filter(None, parts))
    if cell.checkpoint:
        yield f"checkpoint {units.name(cell.checkpoint)}, sha256 {cell.checkpoint.sha256}"
    for name, seed in cell.seeds.items():
        yield f"{name} seed {seed}, drawn after the model was built"
    if cell.session:
        software = cell.session.environment
        packages = ", ".join(f"{name} {version}" for name, version in sorted(software.packages.items()))
        yield f"session {cell.session.id} on {cell.session.machine.name}: {packages}"
        if peak := grid.sustained(cell.session):
            yield f"the machine sustained {peak}"
    if cell.transcript is not None:
        yield f"what it wrote for one of the inputs: {cell.transcript!r}"
    yield from cell.notes


def _sampled(series: tuple[str, Sequence[float]]) -> str:
    """How the samples of a figure are spread, and why it did not settle."""
    name, samples = series
    found, reason = spread(samples), disturbance(samples)
    shown = {"median": found.p50, "p90": found.p90, "p99": found.p99, "MAD": found.mad}
    parts = ", ".join(f"{key} {units.duration(value)}" for key, value in shown.items() if value is not None)
    return f"{name.replace('_', ' ')}: {parts}, of {len(samples):,} samples{f'; {reason}' if reason else ''}"


def _throttled(throttling: Throttling) -> str:
    """What the system counted meanwhile, and what it does not count."""
    shares = lost(throttling)
    told = described(shares) or "nothing is told of what kept the processor away"
    untold = [cause for cause in CAUSES if cause not in shares and cause != "device"]
    rest = f"; not told: {', '.join(untold)}" if shares and untold else ""
    return f"meanwhile, {units.duration(throttling.seconds)}: {told}{rest}"


def _grown(curve: Curve) -> str:
    """A curve's points in order."""
    shown = units.duration if curve.unit == "s" else units.number
    points = ", ".join(f"{size:g}: {shown(value)}" for size, value in zip(curve.sizes, curve.values, strict=True))
    unit = "" if curve.unit == "s" else f", {units.plain(curve.unit)}"
    return f"{curve.name} by {curve.axis}{unit}: {points}"


def _failure(cell: MatrixCell) -> Iterator[RenderableType]:
    assert cell.failure
    yield Text()
    yield Text(f"The {units.plain(cell.failure.role)} ended in its phase {units.plain(cell.failure.phase)!r}:")
    yield from _lines([cell.failure.reason])
    if lines := cell.failure.log.splitlines()[-_LOG_LINES:]:
        yield Text("The end of its log:")
        yield from _lines(lines, style="dim")


def _layer(evidence: Evidence) -> Iterator[RenderableType]:
    mark, style = _MARKS[evidence.verdict]
    needed = "" if evidence.layer in REQUIRED else "; REAL does not need it, as long as it has not failed"
    verdict = str(evidence.verdict).replace("_", " ")
    yield Text.assemble((f"{mark} {evidence.layer}", f"bold {style}"), f" {verdict}{needed}")
    if evidence.not_judged:
        yield from _lines([evidence.not_judged])
    for check in evidence.checks:
        yield Padding(_check(evidence, check), (0, 0, 0, 2))


def _diagnosis(diagnosis: Diagnosis) -> Iterator[RenderableType]:
    """The stages in order, and the first layer."""
    whose = {"twin": " with the twin's weights", "perturbed": " with one tensor perturbed"}.get(diagnosis.weights, "")
    yield Text.assemble(
        ("Which stage is guilty", "bold"), f": call {units.plain(diagnosis.call)!r}{whose}, stage by stage"
    )
    for stage in diagnosis.stages:
        yield Padding(_line(stage), (0, 0, 0, 2))
    if diagnosis.layer:
        yield Text("The first layer whose output is beyond its bound there, in the order of the network:")
        yield Padding(_line(diagnosis.layer), (0, 0, 0, 2))
    if diagnosis.not_examined:
        yield Padding(Text(f"Not examined: {units.plain(diagnosis.not_examined)}"), (0, 0, 0, 2))


def _line(check: Check) -> Text:
    mark, style = _MARKS[check.verdict]
    numbers = ""
    if check.value is not None and check.bound is not None:
        numbers = f" {units.number(check.value)}, {check.sense.replace('_', ' ')} {units.number(check.bound)}"
    return Text.assemble((mark, style), f" {units.plain(check.name)}{numbers}: {units.plain(check.text)}")


def _check(evidence: Evidence, check: Check) -> Text:
    line = _line(check)
    if check.verdict is Verdict.FAILED:
        consequence = LAYERS[evidence.layer].get(check.name, Status.UNPROVEN)
        line.append(f" → {consequence}", style=_MARKS[check.verdict][1])
    return line


def _conclusion(cell: MatrixCell) -> str:
    reason = units.plain(cell.reason).rstrip(".")
    if cell.status in PRECEDENCE and any(evidence.verdict is Verdict.FAILED for evidence in cell.evidence):
        return f"{cell.status}: of what failed, the gravest decides ({', '.join(PRECEDENCE)})."
    return f"{cell.status}: {reason}."


def _lines(lines: Iterator[str] | Sequence[str], style: str = "") -> Iterator[RenderableType]:
    for line in lines:
        yield Padding(Text(units.plain(line), style=style), (0, 0, 0, 2))
