"""What to run, and with what; every user's mistake is found here, before anything runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from assay import backends, checkpoints, families
from assay.backends.base import Backend
from assay.checkpoints import Checkpoint
from assay.devices import choose
from assay.errors import Unavailable, UsageError, unknown
from assay.schema import OWN, Precision

SIZES = ("tiny", "base")
"""The sizes of local test models: seconds, for CI; or the dimensions of the family's common published checkpoint."""


@dataclass(frozen=True)
class Plan:
    """One run of one backend.

    Attributes:
        families: ids, in the order of the matrix.
        models: the user's checkpoints by family; the other families use a local test model.
        timeout: seconds that one phase of a role may take.
        device: which of the backend's devices, `cuda:1`; None for the first.
        seed: of an earlier run whose inputs are wanted again; None to draw one when the model is built.
    """

    backend: Backend
    families: tuple[str, ...]
    models: Mapping[str, Checkpoint]
    size: str
    precision: Precision
    timeout: float
    device: str | None = None
    seed: str | None = None

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
    precision: str = "f32",
    timeout: float = 600.0,
    device: str | None = None,
) -> Plan:
    """Check and complete what the user asked for.

    Args:
        families: ids; none asked for means those of `models` and `found`, or all.
        models: by family, a folder or an id of the hub.
        found: folders or ids of the hub that find their rows themselves.

    Raises:
        UsageError: an unknown name, a checkpoint that cannot be used, a number out of range, a device that is not
            there although others are.
    """
    models = models or {}
    _families([*families, *models])
    if size not in SIZES:
        raise unknown("size", size, SIZES)
    if precision not in list(Precision):
        raise unknown("precision", precision, list(Precision))
    if not 0 < timeout < float("inf"):
        raise UsageError(f"--timeout takes a positive number of seconds, not {timeout:g}")
    loaded = backends.load(backend)
    _check_device(loaded, device, Precision(precision))
    brought = _checkpoints(models, found)
    chosen = _families([*families, *brought])
    return Plan(loaded, chosen, brought, size, Precision(precision), timeout, device)


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


def _check_device(backend: Backend, device: str | None, precision: Precision) -> None:
    try:
        chosen = choose(backend.devices(), device)
    except Unavailable:
        return  # as every cell will say
    if precision is not Precision.F32 and precision not in (supported := backend.precisions(chosen)):
        raise UsageError(f"{backend.name} computes in {', '.join(supported)} here, not in {precision}")


def _families(asked: Sequence[str]) -> tuple[str, ...]:
    known = families.names()
    for name in asked:
        if name not in known:
            raise unknown("family", name, known)
    return tuple(name for name in known if not asked or name in asked)
