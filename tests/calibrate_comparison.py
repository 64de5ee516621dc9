"""Measures what `assay compare` finds where nothing changed, and the least slowdown that it finds.

    .nox/tests/bin/python tests/calibrate_comparison.py FOLDER

FOLDER holds session reports, in order of their names, of one backend and one set of software: the more, the better.
Slowdowns are made by multiplying every recorded sample of one cell's latency, so that the noise is that of the machine.
Beside it stands what a Mann-Whitney test over the raw samples says of the same runs.
"""

from __future__ import annotations

import argparse
import itertools
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from scipy.stats import mannwhitneyu

from assay.compare import Side, compare
from assay.merge import merge
from assay.report_files import read
from assay.schema import Cell
from assay.session_report import SessionReport

Pair = tuple[Sequence[SessionReport], Sequence[SessionReport]]
METRIC = "latency"
FACTORS = (1.1, 1.2, 1.3, 1.5, 1.75, 2.0, 2.5, 3.0, 5.0)


def side(reports: Sequence[SessionReport]) -> Side:
    return Side(merge(reports, (), ()), None)


def slower(report: SessionReport, family: str, factor: float) -> SessionReport:
    """The report as if every call of one family's latency had taken longer."""
    cells = tuple(_slower(cell, factor) if cell.family == family else cell for cell in report.cells)
    return report.model_copy(update={"cells": cells})


def _slower(cell: Cell, factor: float) -> Cell:
    metric = cell.metrics[METRIC]
    changed = {METRIC: metric.model_copy(update={"value": metric.value * factor})}
    samples = {METRIC: tuple(each * factor for each in cell.samples[METRIC])}
    return cell.model_copy(update={"metrics": cell.metrics | changed, "samples": cell.samples | samples})


def alarms(pairs: Iterable[Pair]) -> str:
    """In how many comparisons of equal code anything was found, and in how many figures."""
    comparisons = [compare(side(base), side(new)) for base, new in pairs]
    figures = [each.verdict for comparison in comparisons for each in comparison.metrics]
    wrong = sum(any(each.verdict for each in comparison.metrics) for comparison in comparisons)
    return f"{wrong} of {len(comparisons)} comparisons, {sum(map(bool, figures))} of {len(figures)} figures"


def power(pairs: Sequence[Pair], families: Sequence[str]) -> str:
    """By factor, the share of comparisons in which the one slower latency is found; each family in its turn."""
    shares = []
    for factor in FACTORS:
        found = [
            any(each.verdict == "regression" and each.metric == METRIC and each.cell.startswith(f"{family} ")
                for each in compare(side(base), side([slower(run, family, factor) for run in new])).metrics)
            for (base, new), family in zip(pairs, itertools.cycle(families), strict=False)
        ]  # fmt: skip
        shares.append(f"×{factor:g} {sum(found) / len(found):.0%}")
    return ", ".join(shares)


def over_samples(pairs: Iterable[Pair]) -> str:
    """How often a Mann-Whitney test over the latency's samples finds a difference at p < 0.05, uncorrected."""
    found = [
        mannwhitneyu(old.samples[METRIC], new.samples[METRIC]).pvalue < 0.05
        for (before,), (after,) in pairs
        for old, new in zip(before.cells, after.cells, strict=True)
    ]
    return f"{sum(found)} of {len(found)} pairs of cells"


def spreads(runs: Sequence[SessionReport]) -> Iterable[str]:
    for index, cell in enumerate(runs[0].cells):
        samples = [np.array(run.cells[index].samples[METRIC]) for run in runs]
        middle, least = (np.std([np.log(of(each)) for each in samples], ddof=1) for of in (np.median, np.min))
        yield f"{cell.family}: from run to run the median of {METRIC} differs by {middle:.0%}, the least by {least:.0%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    runs = sorted(read(parser.parse_args().folder.rglob("*.json"))[0], key=lambda run: run.started_at)
    families = [cell.family for cell in runs[0].cells]
    half = len(runs) // 2
    print(f"{len(runs)} runs of {', '.join(families)}", *spreads(runs), sep="\n")
    single: dict[str, list[Pair]] = {
        "one after the other": [((a,), (b,)) for a, b in zip(runs[::2], runs[1::2], strict=False)],
        "far apart": [((a,), (b,)) for a, b in zip(runs[:half], runs[half:], strict=False)],
        "all pairs": [((a,), (b,)) for a, b in itertools.combinations(runs, 2)],
    }
    for name, pairs in single.items():
        print(f"1 and 1, {name}: {alarms(pairs)}; over samples: {over_samples(pairs)}")
    print(
        f"1 and 1: {power(random.Random(0).sample(single['all pairs'], min(60, len(single['all pairs']))), families)}"
    )
    for count in (3, 5, 10):
        starts = range(len(runs) - 2 * count + 1)
        turns: list[Pair] = [(runs[at : at + 2 * count : 2], runs[at + 1 : at + 2 * count : 2]) for at in starts]
        blocks: list[Pair] = [(runs[at : at + count], runs[at + count : at + 2 * count]) for at in starts]
        print(f"{count} and {count}, alternately: {alarms(turns)}; one side after the other: {alarms(blocks)}")
        print(f"{count} and {count}, alternately: {power(turns, families)}")


if __name__ == "__main__":
    main()
