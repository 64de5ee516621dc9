"""Weights: whose tensors an artifact holds."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from assay import checkpoints
from assay.backends.base import Artifact
from assay.evidence.weights import _tensors
from assay.schema import Check, Verdict


def tensors(artifact: Path) -> Check:
    """What is said of a folder that the runner loads, where the local BERT is judged."""
    case: Any = SimpleNamespace(
        artifact=Artifact("bert", str(artifact), "checkpoint"), checkpoint=checkpoints.local("bert").path
    )
    return _tensors(case)


def test_the_checkpoint_s_own_folder_passes_and_so_does_a_copy(tmp_path: Path) -> None:
    own = checkpoints.local("bert").path
    assert tensors(own).verdict is Verdict.PASSED
    assert tensors(Path(shutil.copytree(own, tmp_path / "copy"))).verdict is Verdict.PASSED


def test_another_folder_is_not_believed_to_be_the_checkpoint(tmp_path: Path) -> None:
    assert tensors(checkpoints.local("bert", seed=4242).path).verdict is Verdict.FAILED
    assert tensors(tmp_path).verdict is Verdict.FAILED
