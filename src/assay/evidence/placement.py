"""Placement: **where** did it run?"""

from __future__ import annotations

from collections.abc import Mapping

from assay.schema import Status

CONSEQUENCES: Mapping[str, Status] = {
    "elsewhere": Status.FALLBACK,
    "foreign_runtime": Status.FALLBACK,
    "precision": Status.INACCURATE,
}
