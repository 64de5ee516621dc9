"""The probe: measures what the machine sustains, in a process of its own while nothing else of the session runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay.devices import Device
from assay.measure import roofline
from assay.roles.phases import PhaseLog
from assay.schema import Precision


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Measure.

    Args:
        request: `device`, `products` (by precision which way to take, null for all that there are) and `bandwidth`
            (likewise).
        folder: this role's folder.

    Returns:
        `products`, by precision, and `bandwidth`: rates by what reached them.
    """
    phase, device = PhaseLog(folder / "phases.jsonl"), Device(**request["device"])
    with phase("matrix product"):
        products = {
            each: roofline.products(device, Precision(each), only) for each, only in request["products"].items()
        }
    with phase("memory bandwidth"):
        return {"products": products, "bandwidth": roofline.bandwidth(device, request["bandwidth"])}
