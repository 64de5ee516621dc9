"""Weights: **from which** weights?

The same run with a twin (same architecture, other weights) must follow the twin; one with a single tensor
perturbed, which the challenge's seed chooses, must move as the reference does; and the tensors that the artifact's
graph holds must be the checkpoint's, bit for bit (at int8, to half a step).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import UsageError, listed
from assay.evidence.agreement import aligned
from assay.schema import Check, Evidence, Layer, Precision, Status

if TYPE_CHECKING:
    import numpy as np

    from assay.evidence.case import Answer, Arrays, Case

CONSEQUENCES: Mapping[str, Status] = {
    "twin_error": Status.INACCURATE,
    "follows_weights": Status.MOCK,
    "one_tensor": Status.INACCURATE,
    "tensors": Status.UNPROVEN,
}


def judge(case: Case) -> Evidence:
    """The errors of other weights, whether outputs moved from the checkpoint to the twin, the artifact's tensors."""
    from assay.evidence.case import error_check

    own = next(answer for answer in case.challenges if answer.name == case.twin.name)
    return Evidence(
        layer=Layer.WEIGHTS,
        checks=(
            aligned("follows_weights", [(own, case.twin)], "weights", case.precision),
            error_check("twin_error", [case.twin], case.precision),
            _one_tensor(case, own),
            _tensors(case),
        ),
    )


def _one_tensor(case: Case, own: Answer) -> Check:
    """The error with one tensor perturbed; beside it, what it would be had that tensor stayed as it was."""
    from assay.evidence.case import error_check

    check = error_check("one_tensor", [case.perturbed], case.precision)
    kept = case.perturbed.deviation(case.precision, own.expected).share
    moved = f"{case.tensor} in another order moves the outputs by {kept:.3g} times what the bound allows"
    if kept <= 1:
        moved += ", too little to tell whether it arrived"
    return check.model_copy(update={"text": f"{moved}; {check.text}"})


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
    """The share of the used parameters that the artifact holds."""
    from assay.tensor_files import tensors

    if case.artifact.format == "checkpoint":
        own = _same(Path(case.artifact.path), case.checkpoint)
        text = "the runner loads the checkpoint's own safetensors"
        if not own:
            text = "the folder that the runner loads is not the checkpoint, and holds something else"
        return Check(name="tensors", value=float(own), bound=1, sense="at_least", text=text)
    parameters = dict(tensors(case.checkpoint))
    if case.artifact.format == "onnx":
        return _share(case, parameters, _not_held(case, parameters), "bit for bit")
    if case.built_in and case.precision is Precision.INT8 and case.backend.quantiser:
        how = "bit for bit, or in int8 within the half step that rounding takes"
        return _share(case, parameters, _not_quantised(case, parameters), how)
    return Check(name="tensors", text=f"no reader for artifacts of format {case.artifact.format!r}")


def _not_held(case: Case, parameters: Arrays) -> dict[str, np.ndarray]:
    """The parameters that the artifact's graphs do not hold, either way round."""
    from assay.backends.onnx_tensors import Parameters, initializers

    own = Parameters(parameters)
    held = {name for array in initializers(Path(case.artifact.path)) for name, _ in own.find(array)}
    return {name: array for name, array in parameters.items() if name not in held}


def _not_quantised(case: Case, parameters: Arrays) -> dict[str, np.ndarray]:
    """The same, where what has codes in its place counts as held if they are its."""
    from assay.backends.quantised import quantiser

    missing = dict(parameters)
    for tensor in quantiser(case.backend).held(Path(case.artifact.path)):
        missing = {name: array for name, array in missing.items() if not tensor.holds(array)}
    return missing


def _share(case: Case, parameters: Arrays, missing: Arrays, how: str) -> Check:
    """Judge by what is missing, less what no output uses."""
    unused = case.reference.unused(missing, case.challenges[0].inputs)
    used = sum(array.size for name, array in parameters.items() if name not in unused)
    lost = sorted(set(missing) - unused)
    share = 1 - sum(missing[name].size for name in lost) / used
    text = f"{share:.4%} of {used:,} used parameters are in the artifact {how}"
    if unused:
        text += f"; {len(unused)} tensors that no judged output uses are left out: {listed(sorted(unused))}"
    if lost:
        text += f"; not found: {listed(lost)}"
    return Check(name="tensors", value=share, bound=1, sense="at_least", text=text)
