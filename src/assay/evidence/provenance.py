"""Provenance: **by what** software? Versions are recorded; verifying installed files is not done yet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from assay.schema import Evidence, Layer, Status

if TYPE_CHECKING:
    from assay.evidence.case import Case

CONSEQUENCES: Mapping[str, Status] = {}


def judge(_case: Case) -> Evidence:
    """Not judged, with the reason."""
    return Evidence(
        layer=Layer.PROVENANCE,
        not_judged="versions are recorded, but installed files are not yet compared with their install records",
    )
