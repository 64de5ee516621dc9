"""What can run here, and what is missing for the rest: devices first, then software."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass

from assay import backends
from assay.devices import Device
from assay.errors import Unavailable, UsageError
from assay.schema import Precision

HARNESS = ("torch", "transformers")
"""What every environment needs beside its runtime: the builder's and the judge's own."""


@dataclass(frozen=True)
class Diagnosis:
    """What one backend finds here.

    Attributes:
        available: its device is here; nothing is said of its software.
        reason: one sentence on the device.
        looked_for: what was looked for, one line each, where no device is here.
        devices: the devices it could use.
        precisions: what the first of them computes in.
        missing: modules that this environment lacks for it.
        remedy: the command that runs it in an environment of its own; empty where nothing is missing.
    """

    backend: str
    available: bool
    reason: str
    looked_for: tuple[str, ...] = ()
    devices: tuple[Device, ...] = ()
    precisions: tuple[Precision, ...] = ()
    missing: tuple[str, ...] = ()
    remedy: str = ""

    @property
    def ready(self) -> bool:
        """Whether `assay run` can judge it here and now."""
        return self.available and not self.missing


def examine(names: Iterable[str] | None = None) -> list[Diagnosis]:
    """Every backend's diagnosis, in the order of the matrix."""
    return [diagnose(name) for name in (backends.names() if names is None else names)]


def diagnose(name: str) -> Diagnosis:
    """One backend's diagnosis; a plugin that cannot be loaded has one too.

    Raises:
        UsageError: no such backend.
    """
    if name not in backends.names():
        backends.load(name)  # says which names there are
    try:
        backend = backends.load(name)
        devices = tuple(backend.devices())
        precisions = tuple(backend.precisions(devices[0]))
    except UsageError as error:
        return Diagnosis(name, available=False, reason=str(error))
    except Unavailable as error:
        return Diagnosis(name, available=False, reason=error.reason, looked_for=error.looked_for)
    missing = _missing((*backend.preload, *backend.builder_preload, *backend.export_preload, *HARNESS))
    return Diagnosis(
        name,
        available=True,
        reason=", ".join(device.name for device in devices),
        devices=devices,
        precisions=precisions,
        missing=missing,
        remedy=f"nox -s {name if backends.built_in(name) else backend.environment}" if missing else "",
    )


def _missing(modules: Iterable[str]) -> tuple[str, ...]:
    """The top-level modules that cannot be found; looking for more than those would import them."""
    wanted = dict.fromkeys(module.partition(".")[0] for module in modules)
    return tuple(module for module in wanted if importlib.util.find_spec(module) is None)
