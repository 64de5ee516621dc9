"""Mutants before the judge: what became of each, and how far its fault alone moves the outputs."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from assay import cache, checkpoints
from assay.backends.base import Engine
from assay.checkpoints import Checkpoint
from assay.schema import Cell, Precision
from tests.trial.lab import DTYPES, EXACT, TIMED, Specimen, Subject, killed
from tests.trial.mutants import CHOOSING, FAULTS, Fault
from tests.trial.parts import NotApplicable

EQUIVALENT = 1e-3
"""Noise floors below which a fault has no effect: float64 itself rounds at 2e-9 of the floor of f32."""

ARITHMETIC = {
    "bf16 for f32": (Precision.F32, Precision.BF16),
    "f16 for f32": (Precision.F32, Precision.F16),
    "bf16 for f16": (Precision.F16, Precision.BF16),
    "f32 for f16": (Precision.F16, Precision.F32),
    "f32 for bf16": (Precision.BF16, Precision.F32),
}
"""Declared, and executed: right weights, right function, other arithmetic."""


@dataclass(frozen=True)
class Tried:
    """One mutant before the judge.

    Attributes:
        effect_in_floors: how far the fault alone, in float64, moves the judged outputs (`Specimen.effect`); for other
            arithmetic, how far the run itself was off.
        equivalent: the fault changes nothing that is judged: nobody can see it, and it is not counted.
    """

    name: str
    family: str
    precision: str
    effect_in_floors: float
    status: str
    killed: bool
    equivalent: bool
    reason: str


def try_all(family: str, precision: Precision, repeats: int, seed: str) -> list[Tried]:
    """Every mutant of one family at one precision; those that choose (a layer, a tensor) so many times."""
    specimen = Specimen(family, precision, seed)
    found = [
        tried for fault in FAULTS for number in range(repeats if fault in CHOOSING else 1)
        if (tried := try_one(specimen, fault, number)) is not None
    ]  # fmt: skip
    executed = [(name, other) for name, (declared, other) in ARITHMETIC.items() if declared is precision]
    choices = np.random.default_rng(zlib.crc32(f"kept/{family}".encode()))
    return [
        *found, *(_other_arithmetic(specimen, name, other) for name, other in executed),
        skipped_call(specimen),
        *kept_tensors(specimen, lambda names: choices.choice(names, repeats, replace=False).tolist()),
        *stale_exports(specimen, lambda names: choices.choice(names, repeats, replace=False).tolist()),
    ]  # fmt: skip


def try_one(specimen: Specimen, fault: Fault, number: int) -> Tried | None:
    """One mutant, its choices numbered; None where the architecture has nothing of the kind."""

    def mutant(checkpoint: Checkpoint, dtype: torch.dtype) -> Subject:
        # The same choices whatever the weights, and for float64.
        key = zlib.crc32(f"{fault.__name__}/{specimen.family.id}/{number}".encode())
        subject = specimen.subject(checkpoint, dtype, np.random.default_rng(key))
        with torch.no_grad():
            fault(subject)
        return subject

    dtype = DTYPES[specimen.precision]
    try:
        effect = specimen.effect(mutant(specimen.checkpoint, EXACT).engine())
        own, *others = (mutant(each, dtype).engine() for each in _weights(specimen))
    except NotApplicable:
        return None
    cell = specimen.judge(specimen.observe(own), *map(specimen.observe_one, others))
    return _tried(specimen, fault.__name__.replace("_", " "), effect, cell, equivalent=effect < EQUIVALENT)


def _weights(specimen: Specimen) -> tuple[Checkpoint, Checkpoint, Checkpoint]:
    return specimen.checkpoint, specimen.twin, specimen.perturbed


def _engines(specimen: Specimen, dtype: torch.dtype) -> list[Engine]:
    """Of the checkpoint, the twin and the perturbed checkpoint, in that arithmetic, with nothing wrong."""
    return [specimen.subject(each, dtype, np.random.default_rng(0)).engine() for each in _weights(specimen)]


def _other_arithmetic(specimen: Specimen, name: str, executed: Precision) -> Tried:
    own, *others = _engines(specimen, DTYPES[executed])
    observed = specimen.observe(own)
    effect = specimen.distance(specimen.answers(observed))
    cell = specimen.judge(observed, *map(specimen.observe_one, others))
    return _tried(specimen, name, effect, cell, equivalent=False)


def skipped_call(specimen: Specimen) -> Tried:
    """One of the timed calls that are kept is not computed: it answers like the one before, which is not kept."""
    own, *others = _engines(specimen, DTYPES[specimen.precision])
    observed = specimen.observe(own)
    last, before = f"timed {TIMED - 1}", specimen.challenges.timed(TIMED)
    answer = {key: np.array(array) for key, array in own.run(before).items()}
    skipped = replace(observed, outputs={**observed.outputs, last: answer})
    effect = specimen.distance([each for each in specimen.answers(skipped) if each.name == last])
    cell = specimen.judge(skipped, *map(specimen.observe_one, others))
    return _tried(specimen, "skipped call", effect, cell, equivalent=False)


def stale_exports(specimen: Specimen, choose: Callable[[list[str]], Iterable[str]]) -> Iterator[Tried]:
    """The checkpoint's export serves the perturbed checkpoint, whose export is kept by less than its content.

    Once for each tensor that is chosen by name, of those that a seed may choose.
    """
    engine, twin, _ = _engines(specimen, DTYPES[specimen.precision])
    own = specimen.observe(engine)
    exact = specimen.subject(specimen.checkpoint, EXACT, np.random.default_rng(0)).engine()
    once_more, twins = specimen.observe_one(engine), specimen.observe_one(twin)
    with cache.scratch() as folder, cache.making_in(folder):
        for tensor in choose(checkpoints.matrices(specimen.checkpoint.path)):
            specimen.perturb(tensor)
            effect = specimen.perturbed_effect(exact)
            cell = specimen.judge(own, twins, once_more)
            yield _tried(specimen, "stale export", effect, cell, equivalent=effect < EQUIVALENT)


def kept_tensors(specimen: Specimen, choose: Callable[[list[str]], Iterable[str]]) -> Iterator[Tried]:
    """The twin's run with one tensor that is still the checkpoint's, once for each of those that are chosen by name.

    What is run of the checkpoint itself is honest: only the twin can tell.
    """
    dtype, rng = DTYPES[specimen.precision], np.random.default_rng(0)
    engine, _, perturbed = _engines(specimen, dtype)
    own, one = specimen.observe(engine), specimen.observe_one(perturbed)

    def keeping(name: str, arithmetic: torch.dtype) -> Engine:
        held, twin = (specimen.subject(each, arithmetic, rng) for each in (specimen.checkpoint, specimen.twin))
        twin.module.state_dict()[name].copy_(held.module.state_dict()[name])
        return twin.engine()

    for name in choose(tensors(specimen.subject(specimen.twin, dtype, rng).module)):
        effect = specimen.twin_effect(keeping(name, EXACT))
        cell = specimen.judge(own, specimen.observe_one(keeping(name, dtype)), one)
        tried = _tried(specimen, "kept tensor", effect, cell, equivalent=effect < EQUIVALENT)
        yield replace(tried, reason=f"{name}: {tried.reason}")


def tensors(module: torch.nn.Module) -> list[str]:
    """Names of all tensors of numbers, those that share memory once."""
    found = {each.data_ptr(): name for name, each in module.state_dict().items() if each.is_floating_point()}
    return sorted(found.values())


def _tried(specimen: Specimen, name: str, effect: float, cell: Cell, *, equivalent: bool) -> Tried:
    return Tried(
        name=name, family=specimen.family.id, precision=str(specimen.precision), effect_in_floors=effect,
        status=str(cell.status), killed=killed(cell) and not equivalent, equivalent=equivalent, reason=cell.reason,
    )  # fmt: skip
