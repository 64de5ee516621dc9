"""A session report: one run of one backend, where it ran, and what the machine sustained."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from assay.records import Finite, Record, Timestamp
from assay.schema import SCHEMA_VERSION, Cell, Precision


class Machine(Record):
    """Where a session ran."""

    name: str
    system: str
    processor: str
    cores: int
    memory: int
    devices: tuple[str, ...] = ()


class Rate(Record):
    """The best rate of several ways, a second, and that of each; FLOP or bytes."""

    value: Finite
    by: str
    tried: dict[str, Finite]


class MachinePeak(Record):
    """What the machine sustained while nothing else of the session ran.

    Attributes:
        products: FLOP/s of a matrix product, by precision: the best of what the environment offers.
        make: FLOP/s that no device of that make exceeds; not where nobody tells.
        bandwidth: bytes/s of the memory.
        load: processes that ran or waited to, over the last minute; none where the system does not tell.
        frequency: of the processor then, Hz; none where the system does not tell.
    """

    at: Timestamp
    products: dict[Precision, Rate]
    make: dict[Precision, Finite] = Field(default_factory=dict)
    bandwidth: Rate
    load: Finite | None = None
    frequency: Finite | None = None


class Environment(Record):
    """The software of a session: what its backend's environment holds."""

    python: str
    assay: str
    packages: dict[str, str] = Field(default_factory=dict)
    threads: int


class SessionReport(Record):
    """One run of one backend.

    Attributes:
        asked_device: what `--device` said.
        peaks: what the machine sustained before the first cell, and after the last.
        planned: the families, in order.
        precisions: in what each of them was to run; older reports name none.
    """

    schema_version: Literal[1] = SCHEMA_VERSION
    id: str
    backend: str
    asked_device: str | None = None
    started_at: Timestamp
    finished_at: Timestamp | None = None
    machine: Machine
    environment: Environment
    peaks: tuple[MachinePeak, ...] = ()
    planned: tuple[str, ...]
    precisions: tuple[Precision, ...] = ()
    cells: tuple[Cell, ...] = ()
