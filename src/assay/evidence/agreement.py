"""Agreement: **what** was computed?"""

from __future__ import annotations

from collections.abc import Mapping

from assay.schema import Status

CONSEQUENCES: Mapping[str, Status] = {
    "finite": Status.INACCURATE,
    "error": Status.INACCURATE,
    "follows_inputs": Status.MOCK,
}
