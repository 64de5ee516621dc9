"""The builder: checkpoint and twin, and from both the artifacts that the runner opens."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from assay import backends, cache, checkpoints, families
from assay.backends.base import Artifact
from assay.checkpoints import Checkpoint, Source
from assay.roles.phases import PhaseLog
from assay.schema import Precision


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Build.

    Args:
        request: `family`, `size`, `backend`, `precision`, `model`, a user's `Source` or None, and `look`: export
            nothing, only find what the cache has.
        folder: this role's folder.

    Returns:
        `checkpoint` and `twin`, each with its reference, path and artifact, and `config`: the path of their
        configuration as the family describes it. Of a look that found something missing, nothing.
    """
    phase = PhaseLog(folder / "phases.jsonl")
    backend = backends.load(request["backend"])
    precision = Precision(request["precision"])

    with phase("checkpoint"):
        if request["model"]:
            source = Source(**request["model"] | {"path": Path(request["model"]["path"])})
            checkpoint = checkpoints.opened(request["family"], source)
        else:
            checkpoint = checkpoints.local(request["family"], request["size"])
        twin = checkpoints.twin(checkpoint)
        config = folder / "config.json"
        config.write_text(json.dumps(families.load(checkpoint.family).describe(checkpoint.path)), encoding="utf-8")
    try:
        with cache.only_finding("exports") if request["look"] else nullcontext():
            with phase("export"):
                artifact = backend.build(checkpoint, precision=precision)
            with phase("export twin"):
                twin_artifact = backend.build_twin(checkpoint, twin, precision=precision)
    except cache.Missing:
        return {}
    return {
        "checkpoint": described(checkpoint, artifact),
        "twin": described(twin, twin_artifact),
        "config": str(config),
    }


def described(checkpoint: Checkpoint, artifact: Artifact) -> dict[str, Any]:
    """What is said of a checkpoint and its artifact."""
    ref = checkpoint.ref().model_dump(mode="json")
    return {"path": str(checkpoint.path), "ref": ref, "artifact": artifact.to_json()}
