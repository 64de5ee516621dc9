"""Timing: **when** was the work done?"""

from __future__ import annotations

from collections.abc import Mapping

from assay.schema import Status

CONSEQUENCES: Mapping[str, Status] = {
    "sampled_error": Status.INACCURATE,
    "sampled_follows_inputs": Status.MOCK,
    "covered": Status.MOCK,
}
