"""What a file of known failures holds."""

from __future__ import annotations

from typing import Literal

from pydantic import field_validator

from assay.records import Record
from assay.schema import SCHEMA_VERSION, Precision, Status


class KnownFailure(Record):
    """A cell that is known not to be REAL, and what it is; `checkpoint` names one that the user brought."""

    family: str
    backend: str
    size: str
    precision: Precision
    checkpoint: str | None = None
    status: Status
    note: str = ""

    @field_validator("status")
    @classmethod
    def _no_failure(cls, status: Status) -> Status:
        if status in (Status.REAL, Status.UNAVAILABLE):
            raise ValueError(f"{status} is no failure: leave the cell out")
        return status


class KnownFailures(Record):
    """What `--expect` reads: every cell that is not named here should be REAL."""

    schema_version: Literal[1] = SCHEMA_VERSION
    known_failures: tuple[KnownFailure, ...]
