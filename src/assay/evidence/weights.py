"""Weights: **from which** weights?

The same run with a twin (same architecture, other weights) must follow the twin, and the tensors
that the artifact's graph holds must be the checkpoint's, bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import UsageError, listed
from assay.evidence.agreement import aligned
from assay.schema import Check, Evidence, Layer, Status

if TYPE_CHECKING:
    from assay.evidence.case import Case

CONSEQUENCES: Mapping[str, Status] = {
    "twin_error": Status.INACCURATE,
    "follows_weights": Status.MOCK,
    "tensors": Status.UNPROVEN,
}


def judge(case: Case) -> Evidence:
    """The twin's error, whether outputs moved from the checkpoint to the twin, and the artifact's tensors."""
    from assay.evidence.case import error_check

    pairs = list(zip(case.challenges, case.twin, strict=True))
    return Evidence(
        layer=Layer.WEIGHTS,
        checks=(
            aligned("follows_weights", pairs, "weights", case.precision),
            error_check("twin_error", case.twin, case.precision),
            _tensors(case),
        ),
    )


def _same(folder: Path, checkpoint: Path) -> bool:
    """Whether a folder is the checkpoint's, or computes with the same bytes."""
    from assay.checkpoints import digest

    if folder.resolve() == checkpoint.resolve():
        return True
    try:
        return digest(folder) == digest(checkpoint)
    except (UsageError, OSError):
        return False


def _tensors(case: Case) -> Check:
    """The share of the used parameters that the artifact holds bit for bit."""
    from assay.backends.onnx_export import digest, digests, initializers
    from assay.tensor_files import tensors

    if case.artifact.format == "checkpoint":
        own = _same(Path(case.artifact.path), case.checkpoint)
        text = "the runner loads the checkpoint's own safetensors"
        if not own:
            text = "the folder that the runner loads is not the checkpoint, and holds something else"
        return Check(name="tensors", value=float(own), bound=1, sense="at_least", text=text)
    if case.artifact.format != "onnx":
        return Check(name="tensors", text=f"no reader for artifacts of format {case.artifact.format!r}")
    held = frozenset(digest(array) for array in initializers(Path(case.artifact.path)))
    parameters = dict(tensors(case.checkpoint))
    missing = {name: array for name, array in parameters.items() if not digests(array) & held}
    inputs = case.challenges[0].inputs
    unused = {name for name, array in missing.items() if not case.reference.uses(array, inputs)}
    used = sum(array.size for name, array in parameters.items() if name not in unused)
    lost = sorted(set(missing) - unused)
    share = 1 - sum(missing[name].size for name in lost) / used
    text = f"{share:.4%} of {used:,} used parameters are in the artifact bit for bit"
    if unused:
        text += f"; {len(unused)} tensors that no judged output uses are left out: {listed(sorted(unused))}"
    if lost:
        text += f"; not found: {listed(lost)}"
    return Check(name="tensors", value=share, bound=1, sense="at_least", text=text)
