"""The layers of evidence, one file each.

Every layer's file declares `CONSEQUENCES`: its check names, and the status that a cell gets when
that check fails. All named checks must be there for the layer to pass.
"""

from __future__ import annotations

from collections.abc import Mapping

from assay.evidence import agreement, placement, provenance, timing, weights
from assay.schema import Layer, Status

LAYERS: Mapping[Layer, Mapping[str, Status]] = {
    Layer.AGREEMENT: agreement.CONSEQUENCES,
    Layer.WEIGHTS: weights.CONSEQUENCES,
    Layer.PLACEMENT: placement.CONSEQUENCES,
    Layer.TIMING: timing.CONSEQUENCES,
    Layer.PROVENANCE: provenance.CONSEQUENCES,
}
