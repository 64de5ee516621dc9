"""Digests of the reference, by which the judges of two environments are compared.

Bits differ between honest machines: sums of float64 are taken in another order by another BLAS, processor or number of
threads. So a digest is a few numbers with a tolerance and no hash: sums of an output y with random signs, divided by
the square root of the number of values. As a product with a vector of norm 1, each is off by at most |e| where y is off
by e (Cauchy-Schwarz). And |e| <= K floor |y|. The floor at float64 is the measured one, scaled from what that was
perturbed by (the unit round-off u of the declared precision, three of them at f32: `ACCUMULATION`; with integers for
weights 1 / sqrt(12) of their step) to 3 x 2**-53, for a floor is proportional to its perturbations, and sums in float64
are rounded as those in float32 are. K is that of agreement at f32. So it hardly matters at which precision a cell was
judged. An error that only one judge makes, of norm d, shows as about d over the square root of the number of values.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from assay.schema import Digest, Precision

if TYPE_CHECKING:
    import numpy as np

    from assay.evidence.case import Answer, Arrays

SEED = "reference"
"""The seed of the inputs, in every environment and session."""
SUMS = 4
FLOAT64 = 2.0**-53
"""The unit round-off of the reference."""


def digests(outputs: Arrays, masks: Arrays, judged: Answer, precision: Precision) -> tuple[Digest, ...]:
    """A digest of every output.

    Args:
        outputs: the reference's, for the inputs of `SEED`, float64.
        masks: which positions of them mean something.
        judged: any call of the same shape, whose noise tells the floor.
        precision: that of the noise.
    """
    import numpy as np

    from assay.evidence.deviation import K
    from assay.evidence.rounding import ACCUMULATION, STEP, UNIT_ROUND_OFF

    arithmetic = precision.arithmetic
    unit = (
        STEP[precision] / math.sqrt(12) if precision in STEP else ACCUMULATION[arithmetic] * UNIT_ROUND_OFF[arithmetic]
    )
    finer = ACCUMULATION[Precision.F32] * FLOAT64 / unit
    found = []
    for name, array in outputs.items():
        values = array[masks[name]] if name in masks else array
        if not np.isfinite(values).all():
            continue
        found.append(Digest(
            output=name,
            sums=tuple(float(signs @ values.ravel() / np.sqrt(values.size)) for signs in _signs(name, values.size)),
            tolerance=K[Precision.F32] * finer * _floor(judged, name) * float(np.linalg.norm(values)),
        ))  # fmt: skip
    return tuple(found)


def agree(left: Iterable[Digest], right: Iterable[Digest]) -> bool:
    """Whether two judges may have computed the same, outputs that both have: each is within its tolerance of it."""
    others = {digest.output: digest for digest in right}
    return all(
        len(mine.sums) == len(other.sums)
        and all(abs(a - b) <= mine.tolerance + other.tolerance for a, b in zip(mine.sums, other.sums, strict=True))
        for mine in left
        if (other := others.get(mine.output))
    )


def groups(digests: Sequence[tuple[str, Sequence[Digest]]]) -> list[list[str]]:
    """Names put together whose digests agree, each with the first of its group."""
    found: list[tuple[Sequence[Digest], list[str]]] = []
    for name, own in digests:
        group = next((names for first, names in found if agree(first, own)), None)
        if group is None:
            found.append((own, [name]))
        elif name not in group:
            group.append(name)
    return [names for _, names in found]


def _floor(judged: Answer, name: str) -> float:
    """The root mean square over the draws of the relative change of a whole output."""
    import numpy as np

    exact = judged.expected[name]
    keep = judged.masks[name] if name in judged.masks else np.ones(exact.shape[:-1], bool)
    changes = judged.noise[name][:, keep] - exact[keep]
    squares = np.sum(changes.reshape(len(changes), -1) ** 2, axis=1)
    return float(np.sqrt(np.mean(squares)) / (np.linalg.norm(exact[keep]) or 1.0))


def _signs(name: str, size: int) -> np.ndarray:
    """(SUMS, size) of +-1, from raw bits of SHAKE-256: the same for every numpy."""
    import numpy as np

    width = -(-size // 8)
    bits = np.frombuffer(hashlib.shake_256(name.encode()).digest(SUMS * width), np.uint8).reshape(SUMS, width)
    return 1.0 - 2.0 * np.unpackbits(bits, axis=1)[:, :size]
