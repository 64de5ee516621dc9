"""The perturber: the checkpoint with one tensor in another order, and the artifact that the runner opens of it.

Which tensor, and in which order, nobody could know before the seed was drawn: what was kept of other weights,
whatever it goes by, does not fit these.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay import backends, cache, checkpoints
from assay.checkpoints import Checkpoint
from assay.roles.builder import described
from assay.roles.phases import PhaseLog
from assay.schema import Precision


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Perturb.

    Args:
        request: `family`, `size`, `backend`, `precision`, `seed`, `checkpoint` (as the builder described it), and
            `scratch`, a folder for what is made.
        folder: this role's folder.

    Returns:
        What the builder says of a checkpoint, of the perturbed one, and the `tensor` that the seed chose.
    """
    phase = PhaseLog(folder / "phases.jsonl")
    backend = backends.load(request["backend"])
    given = request["checkpoint"]
    checkpoint = Checkpoint(request["family"], Path(given["path"]), size=request["size"], **given["ref"])
    with cache.making_in(Path(request["scratch"])):
        with phase("checkpoint"):
            tensor = checkpoints.chosen_tensor(checkpoint.path, request["seed"])
            perturbed = checkpoints.perturbed(checkpoint, tensor, request["seed"])
        with phase("export"):
            artifact = backend.build_twin(checkpoint, perturbed, precision=Precision(request["precision"]))
    return described(perturbed, artifact) | {"tensor": tensor}
