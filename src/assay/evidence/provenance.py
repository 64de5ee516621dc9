"""Provenance: **by what** software?"""

from __future__ import annotations

from collections.abc import Mapping

from assay.schema import Status

CONSEQUENCES: Mapping[str, Status] = {}
