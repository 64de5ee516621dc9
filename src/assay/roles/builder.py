"""The builder: checkpoint and twin, and from both the artifacts that the runner opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from assay import backends, checkpoints
from assay.checkpoints import Checkpoint
from assay.roles.phases import PhaseLog
from assay.schema import Precision


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Build.

    Args:
        request: `family`, `size`, `backend`, `precision`, and `model`, a user's checkpoint folder or None.
        folder: this role's folder.

    Returns:
        `checkpoint` and `twin`, each with its reference, path and artifact.
    """
    phase = PhaseLog(folder / "phases.jsonl")
    backend = backends.load(request["backend"])
    precision = Precision(request["precision"])

    def built(checkpoint: Checkpoint, name: str) -> dict[str, Any]:
        with phase(name):
            artifact = backend.build(checkpoint, precision=precision)
        return {
            "path": str(checkpoint.path),
            "ref": checkpoint.ref().model_dump(mode="json"),
            "artifact": artifact.to_json(),
        }

    with phase("checkpoint"):
        if request["model"]:
            checkpoint = checkpoints.opened(request["family"], Path(request["model"]))
        else:
            checkpoint = checkpoints.local(request["family"], request["size"])
        twin = checkpoints.twin(checkpoint)
    return {"checkpoint": built(checkpoint, "export"), "twin": built(twin, "export twin")}
