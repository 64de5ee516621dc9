"""Weights: **from which** weights?"""

from __future__ import annotations

from collections.abc import Mapping

from assay.schema import Status

CONSEQUENCES: Mapping[str, Status] = {
    "follows_weights": Status.MOCK,
    "twin_error": Status.INACCURATE,
    "tensors": Status.UNPROVEN,
}
