"""Which backends can run here, and why not: asked without a heavy import."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from assay import backends
from assay.errors import Unavailable


@dataclass(frozen=True)
class Diagnosis:
    """One backend on this machine, in this environment.

    Attributes:
        available: its device is here.
        reason: in a sentence: which device, or why none; and what software is missing here.
        looked_for: what was looked for and not found.
        devices: the models of its devices.
        installed: its software can be imported in this environment.
    """

    backend: str
    available: bool
    reason: str
    looked_for: tuple[str, ...]
    devices: tuple[str, ...]
    installed: bool


def examine() -> list[Diagnosis]:
    """Every backend, in the order of the matrix."""
    return [_examined(name) for name in backends.names()]


def _examined(name: str) -> Diagnosis:
    backend = backends.load(name)
    missing = [module for module in backend.preload if importlib.util.find_spec(module.partition(".")[0]) is None]
    try:
        devices = tuple(device.name for device in backend.devices())
    except Unavailable as error:
        return Diagnosis(name, False, error.reason, error.looked_for, (), not missing)
    reason = f"runs on {', '.join(devices)}"
    if missing:
        reason += f"; {', '.join(missing)} is not installed here: `nox -s {backend.environment}` makes its environment"
    return Diagnosis(name, True, reason, (), devices, not missing)
