"""What a plan needs of memory and disk, beside what there is: said in one line before anything runs.

The figures are bytes for each parameter, measured on Linux with two cores: the peak resident set of each role, less
what it has after its imports and less what it takes at size `tiny`, with MiniLM (22.7 million parameters, half of them
one matrix) and a BERT of published dimensions (109.5 million). They are kept low: what is refused could not have run,
and what passes may still be tight.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from assay import cache, families, machine, tensor_files
from assay.errors import UsageError, listed
from assay.evidence.case import KEPT
from assay.plan import Plan
from assay.report.units import amount, number
from assay.roles.process import role_environment
from assay.schema import Precision

JUDGE = 16
"""Bytes for each parameter: the checkpoint and its twin in float64."""
JUDGE_LARGE = 8
"""The same above `KEPT` parameters, which stay float32."""
START = 450 * 2**20
"""Bytes of a role before it does anything: Python, torch and transformers. Measured: 409 MiB, with the exporter 456;
a runner without torch 75-85."""
OUTPUTS = 256 * 2**20
"""Bytes of a cell's outputs, kept in the temporary folder until the session ends. Measured: 0.1 MiB for MiniLM, 1.4 for
BERT; logits of 50,000 tokens at 100 positions are 20 MB, and about ten calls are judged."""
NEGLIGIBLE = "tiny"
"""A size of local test models that fits wherever torch does: less than a million parameters."""
CODES = 0.25
"""Of the weights of an export, what they take once more in int8 at the least."""
_WEIGHT = 4
"""Bytes a parameter that assay writes, in float32 whatever the checkpoint has."""


@dataclass(frozen=True)
class Need:
    """What one role of one cell needs of memory, in bytes."""

    family: str
    role: str
    parameters: int
    memory: int


def check(plan: Plan, chosen: Sequence[str]) -> None:
    """Compare what these families need with what there is.

    Args:
        chosen: the family of each cell; one that runs in several precisions is there as often.

    Raises:
        UsageError: it does not fit; with the numbers, and what to do.
    """
    counts = parameters(plan, dict.fromkeys(chosen))
    _check_memory(plan, counts)
    _check_disk(plan, counts, sum(family in counts for family in chosen))


def parameters(plan: Plan, chosen: Iterable[str]) -> dict[str, int]:
    """The number of parameters by family, where it is known and matters: models of size `tiny` are left out.

    A folder's are counted in its headers; those of local test models on torch's meta device, in a process of its own.
    """
    counts = {family: tensor_files.parameters(plan.models[family].path) for family in chosen if family in plan.models}
    local = [family for family in chosen if family not in plan.models]
    return counts | (_counted(plan.size, local, plan.timeout) if local and plan.size != NEGLIGIBLE else {})


def memory(plan: Plan, family: str, count: int) -> Need:
    """The role of a cell that needs most memory."""
    backend = plan.backend
    judge = JUDGE if count <= KEPT else JUDGE_LARGE
    each = {"builder": backend.builder_memory, "runner": backend.runner_memory, "judge": judge}
    role = max(each, key=each.__getitem__)
    return Need(family, role, count, START + round(each[role] * count))


def disk(plan: Plan, family: str, count: int) -> int:
    """Bytes that a cell will add to the cache: a local test model, the twin, and what the backend exports of both."""
    weights = _WEIGHT * count
    copies: Mapping[cache.Kind, float] = {
        "checkpoints": 0 if family in plan.models else 1, "twins": 1, "exports": _exports(plan),
    }  # fmt: skip
    return round(weights * sum(max(0, wanted - _kept(kind, family, weights)) for kind, wanted in copies.items()))


def passing(plan: Plan, count: int) -> int:
    """Bytes that a cell has there for a while: the perturbed checkpoint, and what the backend exports of it."""
    return round(_WEIGHT * count * (1 + _exports(plan) / 2))


def _exports(plan: Plan) -> float:
    """Copies of the weights that exports of checkpoint and twin take."""
    return plan.backend.exports * (1 + CODES * (Precision.INT8 in plan.precisions))


def _kept(kind: cache.Kind, family: str, weights: int) -> int:
    """How many such folders the cache has already, as far as name and size tell."""
    return sum(
        each.kind == kind and each.path.name.startswith(f"{family}-") and 0.9 * weights < each.size < 1.5 * weights
        for each in cache.entries()
    )


def _check_memory(plan: Plan, counts: Mapping[str, int]) -> None:
    there = machine.free_memory()
    worst = max((memory(plan, *each) for each in counts.items()), key=lambda need: need.memory, default=None)
    if worst and worst.memory > there:
        raise UsageError(
            f"{worst.family} on {plan.backend.name}: the {worst.role} needs at least {amount(worst.memory)} of memory "
            f"({_millions(worst.parameters)} parameters), {amount(there)} are free; "
            "free some, or name the other families with --family"
        )


def _check_disk(plan: Plan, counts: Mapping[str, int], cells: int) -> None:
    """The cache's folder and the temporary one may be on one disk, which then needs room for both."""
    needs = {family: disk(plan, family, count) for family, count in counts.items()}
    # Cells of large models run one after another.
    cached = sum(needs.values()) + max((passing(plan, count) for count in counts.values()), default=0)
    written = OUTPUTS * cells
    kept, temporary = _existing(cache.cache_dir()), Path(tempfile.gettempdir())
    shared = kept.stat().st_dev == temporary.stat().st_dev
    largest = max(needs, key=needs.__getitem__, default="")
    for folder, needed, remedy in (
        (kept, cached + written * shared, "make room, or set $ASSAY_CACHE to a larger disk"),
        (temporary, written + cached * shared, "make room, or set $TMPDIR to a larger disk"),
    ):
        there = shutil.disk_usage(folder).free
        if needed > there:
            raise UsageError(
                f"{listed(needs)} on {plan.backend.name}: needs at least {amount(needed)} in {folder}, "
                f"most for {largest} ({_millions(counts[largest])} parameters), {amount(there)} are free; {remedy}"
            )


def _existing(folder: Path) -> Path:
    return next(each for each in (folder, *folder.parents) if each.is_dir())


def _millions(count: int) -> str:
    return f"{number(count / 1e6)} million"


def _counted(size: str, chosen: Sequence[str], timeout: float) -> dict[str, int]:
    """Parameters of local test models; nothing is known where torch is missing, which the builder will say."""
    command = [sys.executable, "-m", "assay.needs", size, *chosen]
    try:
        answer = subprocess.check_output(
            command, env=role_environment(), stderr=subprocess.DEVNULL, text=True, timeout=timeout
        )
    except subprocess.SubprocessError:
        return {}
    counts: dict[str, int] = json.loads(answer.splitlines()[-1])
    return counts


def _count(size: str, family_id: str) -> int:
    import torch
    import transformers

    family = families.load(family_id)
    with torch.device("meta"):  # shapes without a byte of weights
        model = getattr(transformers, family.auto_class).from_config(family.config(size))
    return sum(parameter.numel() for parameter in model.parameters())


if __name__ == "__main__":
    json.dump({family: _count(sys.argv[1], family) for family in sys.argv[2:]}, sys.stdout)
