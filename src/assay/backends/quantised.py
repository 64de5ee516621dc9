"""Artifacts whose weights are integers: what makes and reads them, where they are kept, and their tensors."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from assay import families
from assay.backends.base import Artifact, Backend
from assay.backends.onnx_export import published
from assay.backends.onnx_tensors import either_way, same_bits

LAST = 127
"""The largest code of eight bits, to which a weight is clipped that would have 128: scales put the weight of largest
size, whatever its sign, at -128."""
ROWS = 1024
"""Rows that are compared at once: a table of embeddings has a hundred thousand, which take memory as numbers."""


def made_once(
    export: Artifact, kind: str, packages: Sequence[str], files: Sequence[str], quantise: Callable[[Path, Path], None]
) -> Artifact:
    """An exported model with its weights in int8; from the cache if it was made before.

    Args:
        kind: the artifact's format.
        packages, files: the distributions and the source files that it depends on, beside the export.
        quantise: makes of a graph's file what a runtime opens, in a folder.
    """
    source = Path(export.path)
    recipe = {
        "export": source.name,
        "weights": f"int8, {kind}",
        "packages": {name: version(name) for name in packages},
        "source": hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest(),
    }

    def write(target: Path) -> dict[str, Any]:
        for file in sorted(source.glob("*.onnx")):
            quantise(file, target)
        return {}

    return published(families.load(export.family), recipe, write, kind=kind, before=export.export_seconds)


class Quantiser(Protocol):
    """A module that makes artifacts whose weights are integers, and reads what it made."""

    def quantised(self, export: Artifact) -> Artifact:
        """An exported model with its weights in int8."""

    def held(self, folder: Path) -> Iterator[Codes | Numbers]:
        """Every tensor that an artifact's graphs hold."""

    def products(self, folder: Path) -> Products:
        """What an artifact tells of its products where the runtime's trace does not."""


def quantiser(backend: Backend) -> Quantiser:
    """That of a backend that has int8."""
    assert backend.quantiser is not None, f"{backend.name} has no int8"
    module: Quantiser = import_module(backend.quantiser)
    return module


@dataclass(frozen=True)
class Products:
    """An artifact's products with weights, by name, whose weights are no bytes, and whose activations are integers."""

    wide: tuple[str, ...] = ()
    narrow: tuple[str, ...] = ()


@dataclass(frozen=True)
class Codes:
    """A tensor of an artifact as codes from -128 to 127, each of which stands for so many scales.

    Attributes:
        codes: integers, (rows, ...).
        scale: from one code to the next, of a shape that spreads over the codes.
        lost: by how much the format has changed each scale.
    """

    codes: np.ndarray
    scale: np.ndarray
    lost: np.ndarray

    def holds(self, array: np.ndarray) -> bool:
        """Whether it was made of a checkpoint's tensor, either way round: each number is as near as codes can be."""
        return any(each.shape == self.codes.shape and self._near(each) for each in either_way(array))

    def _near(self, array: np.ndarray) -> bool:
        scale, lost = (np.broadcast_to(each, self.codes.shape) for each in (self.scale, self.lost))
        # The first row tells most tensors apart, and costs nothing.
        parts = [slice(0, 1), *(slice(at, at + ROWS) for at in range(1, len(array), ROWS))]
        return all(_near(array[part], self.codes[part], scale[part], lost[part]) for part in parts)


def _near(array: np.ndarray, codes: np.ndarray, scale: np.ndarray, lost: np.ndarray) -> bool:
    """Within half a step, a whole one where the code is the last; and what the scale itself has lost, for each step."""
    numbers = codes.astype(np.float32)
    step = np.abs(scale) + lost
    # Products and differences of float32 round as well, by less than a thousandth of a step for codes of eight bits.
    off = step * np.where(codes == LAST, np.float32(1.001), np.float32(0.501)) + lost * np.abs(numbers)
    return bool(np.all(np.abs(numbers * scale - array) <= off))


@dataclass(frozen=True)
class Numbers:
    """A tensor of an artifact as it is."""

    array: np.ndarray

    def holds(self, array: np.ndarray) -> bool:
        """Whether it is a checkpoint's tensor bit for bit, either way round."""
        return any(same_bits(each, self.array) for each in either_way(array))
