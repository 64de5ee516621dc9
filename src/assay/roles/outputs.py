"""Outputs on their way from the runner to the judge: files, and beside them digests that go with the response.

A backend can reach the files as long as its process runs. What it rewrites after its answer was written down does not
have the digest any more.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from assay.measure.probes import numbers


@dataclass
class Written:
    """The runner's side: one file a call.

    Attributes:
        folder: the role's folder.
        digests: SHA-256 of each file's bytes, by name.
    """

    folder: Path
    digests: dict[str, str] = field(default_factory=dict)

    def save(self, name: str, outputs: Mapping[str, np.ndarray]) -> None:
        """Keep what is numbers; whatever else an engine answers is missing for the judge."""
        arrays: dict[str, Any] = numbers(outputs)
        stream = io.BytesIO()
        np.savez(stream, **arrays)
        content = stream.getbuffer()
        self.digests[name] = hashlib.sha256(content).hexdigest()
        (self.folder / f"{name}.npz").write_bytes(content)


@dataclass(frozen=True)
class Outputs:
    """The judge's side: the same files, as they were written or not at all."""

    folder: Path
    digests: Mapping[str, str]

    def read(self, name: str) -> dict[str, np.ndarray]:
        """One call's outputs.

        Raises:
            OutputsChanged: the file is not the one that the runner wrote.
        """
        content = (self.folder / f"{name}.npz").read_bytes()
        if hashlib.sha256(content).hexdigest() != self.digests[name]:
            raise OutputsChanged(f"the outputs of {name!r} were rewritten after the runner had written them down")
        with np.load(io.BytesIO(content), allow_pickle=False) as outputs:
            return dict(outputs)


def row(array: np.ndarray, number: int, *, pairwise: bool, first: int = 0) -> np.ndarray:
    """One row of an output, as if it had been alone in its batch; empty where an engine's answer has no such row.

    Args:
        array: (batch, ...), or where it is pairwise (batch, batch, ...).
        number: which.
        pairwise: it has a column for each row as well.
        first: the axis of the rows, where others come before it.
    """
    places = (slice(None),) * first + (slice(number, number + 1),) * (1 + pairwise)
    return array[places[: array.ndim]]


class OutputsChanged(Exception):
    """Somebody wrote outputs anew: nothing can be judged by them."""
