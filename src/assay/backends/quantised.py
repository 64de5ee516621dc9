"""Tensors of an artifact whose weights are integers, beside those of the checkpoint that it was made of."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MATRIX = 2
LAST = 127
"""The largest code of eight bits, to which a weight is clipped that would have 128: scales put the weight of largest
size, whatever its sign, at -128."""
ROWS = 1024
"""Rows that are compared at once: a table of embeddings has a hundred thousand, which take memory as numbers."""


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
        turned = (array, array.T) if array.ndim == MATRIX else (array,)
        return any(each.shape == self.codes.shape and self._near(each) for each in turned)

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
        turned = (array, array.T) if array.ndim == MATRIX else (array,)
        return any(
            each.dtype == self.array.dtype and each.shape == self.array.shape and each.tobytes() == self.array.tobytes()
            for each in turned
        )
