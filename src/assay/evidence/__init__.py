"""The layers of evidence, one file each.

Every layer's file declares `CONSEQUENCES`: its check names, and the status that a cell gets when
that check fails. All named checks must be there for the layer to pass.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

from assay.evidence import agreement, placement, provenance, timing, weights
from assay.schema import Layer, Status

MODULES: Mapping[Layer, ModuleType] = {
    Layer.AGREEMENT: agreement,
    Layer.WEIGHTS: weights,
    Layer.PLACEMENT: placement,
    Layer.TIMING: timing,
    Layer.PROVENANCE: provenance,
}
"""The file of each, whose `judge` makes its evidence of a case."""
LAYERS: Mapping[Layer, Mapping[str, Status]] = {layer: module.CONSEQUENCES for layer, module in MODULES.items()}
"""What follows from each of their checks."""
