"""Every tensor in the mutants *kept tensor* and *stale export*: `python -m tests.trial.kept [PRECISION [FAMILY ...]]`.

The trial tries a few of each family. Whether the twin's error finds *any* tensor that is still the checkpoint's is
asked here, and of every matrix whether it shows that the perturbed checkpoint was never served: a row for each family,
with the least effect that a tensor has and what became of those that have one.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

from assay import families
from assay.report.markdown import as_table
from assay.schema import Precision
from tests.trial.__main__ import MUTANT_SEED
from tests.trial.lab import Specimen, one_thread
from tests.trial.tried import Tried, kept_tensors, stale_exports

NEAR = 3
"""Noise floors: what is below may be honest rounding."""


def every_tensor(family: str, precision: Precision) -> list[Tried]:
    """Both mutants with each tensor of a family."""
    specimen = Specimen(family, precision, MUTANT_SEED)
    return [*kept_tensors(specimen, lambda names: names), *stale_exports(specimen, lambda names: names)]


def table(found: Sequence[Tried]) -> str:
    """Markdown: a row for each family, of one mutant."""
    rows = []
    for family in dict.fromkeys(each.family for each in found):
        tried = [each for each in found if each.family == family]
        effective = [each for each in tried if not each.equivalent]
        far, near = _parted(effective)
        least = min((each.effect_in_floors for each in effective), default=0)
        rows.append(
            (family, str(len(tried)), str(len(tried) - len(effective)), f"{least:.3g}", _kills(far), _kills(near))
        )
    head = ("family", "tensors", "without effect", "least effect", f"killed of {NEAR} floors and more", "killed below")
    return as_table(head, rows)


def _parted(tried: Sequence[Tried]) -> tuple[list[Tried], list[Tried]]:
    far = [each for each in tried if each.effect_in_floors >= NEAR]
    return far, [each for each in tried if each not in far]


def _kills(tried: Sequence[Tried]) -> str:
    return f"{sum(each.killed for each in tried)} of {len(tried)}"


def main(arguments: Sequence[str]) -> int:
    """Try them, a process a core, and print; 1 if one of three floors and more survived."""
    precision = Precision(arguments[0]) if arguments else Precision.F32
    names = tuple(arguments[1:]) or families.ORDER
    with ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=one_thread) as pool:
        found = [each for every in pool.map(every_tensor, names, [precision] * len(names)) for each in every]
    for mutant in dict.fromkeys(each.name for each in found):
        print(f"\n{mutant}, {precision}\n\n{table([each for each in found if each.name == mutant])}")
    return int(not all(each.killed for each in _parted(found)[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
