"""What a trial found, as JSON and as tables: kill rates in bands of effect, false alarms, impostors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from math import sqrt
from typing import Any

import numpy as np

from assay import families
from assay.evidence.deviation import K
from assay.report.markdown import as_table
from assay.schema import FLOATS, Precision, Status
from tests.trial.honest import ENGINES, SIZES, TINY, Judged
from tests.trial.impostors import Outcome
from tests.trial.tried import Tried

BANDS = ((0.0, 1.0, "below 1"), (1.0, 3.0, "1 to 3"), (3.0, 10.0, "3 to 10"), (10.0, float("inf"), "above 10"))
"""Noise floors by which a fault moves the outputs."""
Z = 1.96
TF32 = "tf32 for f32"
"""The least of the usual lowerings of f32."""


@dataclass(frozen=True)
class Trial:
    """Everything that was tried; `full` where nothing was left out."""

    full: bool
    seconds: float
    mutants: Sequence[Tried]
    honest: Sequence[Judged]
    impostors: Sequence[Outcome] = ()

    def to_json(self) -> str:
        """The trial as `reports/trial.json` has it."""
        content = {
            "full": self.full,
            "seconds": round(self.seconds, 1),
            "k": {str(precision): factor for precision, factor in K.items()},
            "mutants": [_finite(asdict(each)) for each in self.mutants],
            "honest": {
                "cells": len(self.honest),
                "judgements": sum(len(each.floors) for each in self.honest),
                "false_alarms": sum(len(each.alarms) for each in self.honest),
                "runs": [_honest(each) for each in self.honest],
            },
            "impostors": [asdict(each) for each in self.impostors],
            "rates": [_rate(*each) for each in self.rates()],
        }
        return json.dumps(content, indent=1) + "\n"

    def rates(self) -> list[tuple[str, str, int, int]]:
        """Precision, band, killed, tried: mutants that change nothing are left out."""
        found = []
        for precision in FLOATS:
            mine = [each for each in self.mutants if each.precision == precision and not each.equivalent]
            for low, high, name in BANDS:
                band = [each for each in mine if low <= each.effect_in_floors < high or each.effect_in_floors == high]
                if band:
                    found.append((str(precision), name, sum(each.killed for each in band), len(band)))
        return found

    def faults(self) -> list[str]:
        """What must not be: a survivor of large effect, a mutant killed without one, a false alarm, a pretence."""
        survivors = [
            f"mutant {each.name} of {each.family} at {each.precision} survived with {each.effect_in_floors:.3g} floors"
            for each in self.mutants
            if not (each.killed or each.equivalent) and each.effect_in_floors >= BANDS[-1][0]
        ]  # fmt: skip
        wrongly = [
            f"mutant {each.name} of {each.family} at {each.precision} has no effect and is {each.status}: {each.reason}"
            for each in self.mutants if each.equivalent and each.status != Status.REAL
        ]  # fmt: skip
        alarms = [
            f"{each.family} on {each.engine} at {each.precision}: {alarm}"
            for each in self.honest
            for alarm in each.alarms
        ]
        believed = [
            f"impostor {each.name} in {each.family} is {each.status} and not {each.expected}: {each.reason}"
            for each in self.impostors
            if not each.caught
        ]
        return [*survivors, *wrongly, *alarms, *believed]

    def tables(self) -> str:
        """Markdown for people."""
        tables = (self._bands(), self._mutants(), self._distributions(), self._rows(), self._impostors())
        return "".join(f"{each}\n\n" for each in tables if each)

    def _bands(self) -> str:
        rows = [
            (precision, band, f"{hit} of {tried}", percent(hit / tried), interval(hit, tried))
            for precision, band, hit, tried in self.rates()
        ]
        return as_table(("precision", "effect in floors", "killed", "rate", "95 % interval"), rows)

    def _mutants(self) -> str:
        names = list(dict.fromkeys(each.name for each in self.mutants))
        rows = []
        for name in names:
            mine = [each for each in self.mutants if each.name == name]
            cells = [name]
            for precision in FLOATS:
                seen = [each for each in mine if each.precision == precision and not each.equivalent]
                cells.append(f"{sum(each.killed for each in seen)} of {len(seen)}" if seen else "")
            effects = [each.effect_in_floors for each in mine if not each.equivalent]
            cells.append(f"{min(effects):.2g} to {max(effects):.2g}" if effects else "none")
            cells.append(", ".join(sorted({each.family for each in mine if each.equivalent})))
            rows.append(tuple(cells))
        return as_table(("mutant", *map(str, FLOATS), "effects in floors", "no effect in"), rows)

    def _distributions(self) -> str:
        rows = []
        for size, precision, engine in product(SIZES, Precision, ENGINES):
            runs = [
                each for each in self.honest if (each.size, each.precision, each.engine) == (size, precision, engine)
            ]
            floors = [value for each in runs for value in each.floors]
            if floors:
                points = [f"{value:.2f}" for value in np.quantile(floors, (0.5, 0.99, 1))]
                alarms = str(sum(len(each.alarms) for each in runs))
                rows.append((size, str(precision), engine, f"{len(floors):,}", *points, f"{K[precision]:g}", alarms))
        columns = ("size", "precision", "engine", "judgements", "median", "99 %", "largest", "K", "false alarms")
        return as_table(columns, rows)

    def _rows(self) -> str:
        """Honest errors and TF32, both at f32, row by row of the matrix: what the bound has on either side."""
        honest = [each for each in self.honest if each.precision == Precision.F32]
        lowered = {each.family: f"{each.effect_in_floors:,.0f}" for each in self.mutants if each.name == TF32}
        rows = []
        for size, family in product(SIZES, families.ORDER):
            mine = [each for each in honest if (each.size, each.family) == (size, family)]
            if mine:
                floors = [[value for each in mine if each.engine == name for value in each.floors] for name in ENGINES]
                shown = [f"{np.median(each):.2f}, {max(each):.2f}" if each else "" for each in floors]
                tf32 = lowered.get(family, "") if size == TINY else ""
                rows.append((family, size, f"{sum(map(len, floors)):,}", *shown, tf32))
        columns = [f"{name}: median, largest" for name in ENGINES]
        return as_table(("family", "size", "judged at f32", *columns, "TF32"), rows) if rows else ""

    def _impostors(self) -> str:
        rows = [
            (each.name, each.family, each.expected, each.status, "yes" if each.caught else "NO")
            for each in self.impostors
        ]
        return as_table(("impostor", "family", "deserves", "got", "caught"), rows) if rows else ""


def interval(hit: int, tried: int) -> str:
    """The 95 % confidence interval of a rate by Wilson (1927), which holds at 0 and 1 as well."""
    share = hit / tried
    middle = (share + Z**2 / (2 * tried)) / (1 + Z**2 / tried)
    half = Z / (1 + Z**2 / tried) * sqrt(share * (1 - share) / tried + Z**2 / (4 * tried**2))
    return f"{percent(max(0.0, middle - half))} to {percent(min(1.0, middle + half))}"


def percent(share: float) -> str:
    """A share in per cent."""
    return f"{100 * share:.1f} %"


def _rate(precision: str, band: str, hit: int, tried: int) -> dict[str, Any]:
    return {"precision": precision, "effect_in_floors": band, "killed": hit, "tried": tried}


def _honest(judged: Judged) -> dict[str, Any]:
    """Without the single values, of which there are thousands."""
    return {
        "family": judged.family, "size": judged.size, "engine": judged.engine, "precision": judged.precision,
        "weights": judged.weights,
        "judgements": len(judged.floors), "median": float(np.median(judged.floors)),
        "largest": _number(max(judged.floors)), "alarms": judged.alarms,
    }  # fmt: skip


def _finite(record: dict[str, Any]) -> dict[str, Any]:
    return {name: _number(value) if isinstance(value, float) else value for name, value in record.items()}


def _number(value: float) -> float | None:
    """None for what JSON cannot say: values that were missing or not finite."""
    return value if np.isfinite(value) else None
