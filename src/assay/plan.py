"""What to run, and with what; every user's mistake is found here, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from assay import backends, checkpoints, families
from assay.backends.base import Backend
from assay.checkpoints import Checkpoint
from assay.devices import choose
from assay.errors import Unavailable, UsageError, unknown
from assay.schema import OWN, Precision

SIZES = ("tiny", "base")
"""The sizes of local test models: seconds, for CI; or the dimensions of the family's common published checkpoint."""


class Place(NamedTuple):
    """Where a cell of a plan stands; its backend and size are the plan's."""

    family: str
    precision: Precision

    def __str__(self) -> str:
        return f"{self.family} {self.precision}"


@dataclass(frozen=True)
class Plan:
    """One run of one backend.

    Attributes:
        families: ids, in the order of the matrix.
        precisions: each family has a cell of each.
        models: the user's checkpoints by family; the other families use a local test model.
        timeout: seconds that one phase of a role may take.
        device: which of the backend's devices, `cuda:1`; None for the first.
        seed: of an earlier run whose inputs are wanted again; None to draw one when the model is built.
    """

    backend: Backend
    families: tuple[str, ...]
    models: Mapping[str, Checkpoint]
    size: str
    precisions: tuple[Precision, ...]
    timeout: float
    device: str | None = None
    seed: str | None = None

    @property
    def places(self) -> tuple[Place, ...]:
        """Every cell: all families at the first precision, whose models and exports the others then find made."""
        return tuple(Place(family, precision) for precision in self.precisions for family in self.families)

    def size_of(self, family: str) -> str:
        """The cell's size: `own` where the user brought a checkpoint."""
        return OWN if family in self.models else self.size


def make_plan(
    *,
    backend: str,
    families: Sequence[str] = (),
    models: Mapping[str, str] | None = None,
    found: Sequence[str] = (),
    size: str = "tiny",
    precisions: Sequence[str] = (),
    timeout: float = 600.0,
    device: str | None = None,
) -> Plan:
    """Check and complete what the user asked for.

    Args:
        families: ids; none asked for means those of `models` and `found`, or all.
        models: by family, a folder or an id of the hub.
        found: folders or ids of the hub that find their rows themselves.
        precisions: none asked for means f32. One that the backend does not compute in here is no mistake: its cells
            are UNAVAILABLE.

    Raises:
        UsageError: an unknown name, a checkpoint that cannot be used, a number out of range, a device that is not
            there although others are.
    """
    models = models or {}
    _families([*families, *models])
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    for precision in precisions:
        if precision not in list(Precision):
            raise unknown("precision", precision, list(Precision))
    if not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout takes a positive number of seconds, not {timeout:g}")
    loaded = backends.load(backend)
    _check_device(loaded, device)
    brought = _checkpoints(models, found)
    chosen = _families([*families, *brought])
    in_order = tuple(each for each in Precision if each in (precisions or (Precision.F32,)))
    return Plan(loaded, chosen, brought, size, in_order, timeout, device)


def _checkpoints(models: Mapping[str, str], found: Sequence[str]) -> dict[str, Checkpoint]:
    """Every checkpoint of the user's, by family."""
    sources = {family: checkpoints.find(text) for family, text in models.items()}
    for text in found:
        source = checkpoints.find(text)
        family = checkpoints.row(source)
        if family in sources:
            raise UsageError(f"{text} belongs to the row {family}, and so does {sources[family].name}: one a run")
        sources[family] = source
    return {family: checkpoints.opened(family, source) for family, source in sources.items()}


def _check_device(backend: Backend, device: str | None) -> None:
    with suppress(Unavailable):  # as every cell will say
        choose(backend.devices(), device)


def _families(asked: Sequence[str]) -> tuple[str, ...]:
    known = families.names()
    for name in asked:
        if name not in known:
            raise unknown("family", name, known)
    return tuple(name for name in known if not asked or name in asked)
