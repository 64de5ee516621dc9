"""How outputs are compared: the relative error of every row and channel, each against its own noise floor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from assay.schema import Precision

K = {Precision.F32: 2.0, Precision.F16: 2.0, Precision.BF16: 2.0, Precision.INT8: 3.0}
"""How many noise floors honest arithmetic may be off: one number a precision, the same for all families. What honest
runs and mutants are off by, `nox -s trial` measures; docs/judgement.md has both. A floor of int8 is made of what
rounding weights does on average, the others of the most that rounding a value does: honest runs are nearer to it."""

PRIOR = 32
"""Degrees of freedom with which the median floor of an output stands behind that of one row or channel."""

FEWEST = 8
"""Independent rows below which channels are not compared on their own: the floor of a channel of one value, which may
lie near zero, cannot be told from four draws. A wrong element shows in its row then."""

ALPHA = 1e-6
"""The chance that a group of honest values passes its bound by the luck of few degrees of freedom."""
_Z = NormalDist().inv_cdf(1 - ALPHA)


@dataclass(frozen=True)
class Deviation:
    """The worst group of an output: its relative error, its bound, and which one it is."""

    error: float
    bound: float
    where: str

    @property
    def share(self) -> float:
        """Error over bound."""
        return self.error / self.bound


def worst(deviations: Iterable[Deviation]) -> Deviation:
    """The one that uses most of its bound."""
    return max(deviations, key=lambda deviation: deviation.share)


class Yardstick:
    """How far every row and channel of one output may be off.

    Args:
        reference: float64, shape (..., C).
        noise: perturbed references, shape (draws, ..., C).
        mask: which positions mean something, shape (...); None: all.
        factor: noise floors that are allowed, `K`.
    """

    def __init__(self, reference: np.ndarray, noise: np.ndarray, mask: np.ndarray | None, *, factor: float) -> None:
        self._keep = np.ones(reference.shape[:-1], bool) if mask is None else mask
        self._exact = reference[self._keep]
        spread = noise[:, self._keep] - self._exact
        turned = spread.transpose(0, 2, 1)
        self._rows = _Groups(self._exact, spread, _independent(spread), factor)
        independent = _independent(turned)
        self._channels = _Groups(self._exact.T, turned, independent, factor) if independent >= FEWEST else None

    def deviation(self, output: np.ndarray, where: str) -> Deviation:
        """The worst row or channel of an output, shape (..., C); `where` is what to call it in a sentence."""
        error = output.astype(np.float64)[self._keep] - self._exact
        rows = self._rows.worst(error, f"row of {where}")
        return worst((rows, self._channels.worst(error.T, f"channel of {where}"))) if self._channels else rows

    def allowed(self) -> float:
        """The largest norm that the error of the whole output can have while every row is within its bound."""
        return float(np.linalg.norm(self._rows.scale * self._rows.bounds))


class _Groups:
    """Groups along the first axis; `exact` (G, n), `spread` (draws, G, n), of `members` independent values each."""

    def __init__(self, exact: np.ndarray, spread: np.ndarray, members: float, factor: float) -> None:
        self._typical = np.linalg.norm(exact) / np.sqrt(len(exact)) or 1.0
        norms = np.linalg.norm(exact, axis=1)
        self.scale = np.where(norms > 0, norms, self._typical)
        own = np.mean(np.sum(spread**2, axis=2), axis=0) / self.scale**2
        freedom = len(spread) * members
        # The median and not the mean: a group of nearly zero norm has an enormous relative floor, and only that group.
        floors = np.sqrt((freedom * own + PRIOR * np.median(own)) / (freedom + PRIOR))
        self.bounds = np.maximum(factor * floors * _luck(members), np.finfo(np.float64).eps)

    def worst(self, error: np.ndarray, what: str) -> Deviation:
        """The group whose error, (G, n), uses most of its bound."""
        errors = np.linalg.norm(error, axis=1) / self.scale
        index = int(np.argmax(errors / self.bounds))
        # Said relative to a group's own norm, or to a typical one where its own vanishes; their ratio is the same.
        shown = self.scale[index] / max(self.scale[index], self._typical)
        return Deviation(float(errors[index] * shown), float(self.bounds[index] * shown), f"{what} (number {index})")


def row_bounds(reference: np.ndarray, noise: np.ndarray, *, factor: float) -> np.ndarray:
    """The largest error norm that each row may have, shape (...) for outputs of shape (..., C)."""
    exact = reference.reshape(-1, reference.shape[-1])
    spread = noise.reshape(len(noise), *exact.shape) - exact
    groups = _Groups(exact, spread, _independent(spread), factor)
    rows: np.ndarray = (groups.scale * groups.bounds).reshape(reference.shape[:-1])
    return rows


def _independent(spread: np.ndarray) -> float:
    """How many of the members of a group round independently, from noise of shape (draws, groups, members).

    The participation ratio of their correlations, less what so few samples (draws, of groups that may be alike
    themselves) make of independent members. Where a model maps all tokens to nearly one vector, their errors are one.
    """
    samples = len(spread) * _participation(spread.transpose(0, 2, 1))
    return 1 / max(1 / _participation(spread) - 1 / samples, 1 / float(spread.shape[2]))


def _participation(spread: np.ndarray) -> float:
    """(trace C)^2 / trace C^2 of the correlations C of the members, whatever their sizes and those of the groups."""
    tiny = np.finfo(np.float64).tiny
    samples = spread / (np.sqrt(np.mean(spread**2, axis=(0, 2), keepdims=True)) + tiny)
    samples = samples / (np.sqrt(np.mean(samples**2, axis=(0, 1), keepdims=True)) + tiny)
    flat = samples.reshape(-1, spread.shape[2])
    gram = flat.T @ flat if flat.shape[1] < len(flat) else flat @ flat.T
    trace = float(np.trace(gram))
    return trace**2 / float(np.sum(gram**2)) if trace else float(spread.shape[2])


def _luck(members: float) -> float:
    """How far the norm of `members` independent honest values passes its root mean square with chance ALPHA.

    The chi-squared quantile by Wilson and Hilferty (1931).
    """
    spread = 2 / (9 * members)
    return float((1 - spread + _Z * np.sqrt(spread)) ** 1.5)


Changes = tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray], Mapping[str, float]]
"""Of the backend's outputs, of the reference's, and the norm of what rounding alone may make of each output."""


def alignment(changes: Sequence[Changes]) -> float | None:
    """How well changes of the outputs follow the reference's: the smallest cosine over the given pairs.

    Every output counts alike, unless it changes hardly more than rounding may change it: a single similarity of two
    embeddings may be the same for two inputs. Pairs in which that holds of all outputs are left out; None if none is
    left. 1: follows; 0: does not (a constant output included).
    """
    told = [_cosine(*each) for each in changes if any(_told(*each[1:], name) for name in each[1])]
    return min(told, default=None)


def _told(expected: Mapping[str, np.ndarray], unsure: Mapping[str, float], name: str) -> bool:
    return float(np.linalg.norm(expected[name])) > unsure[name]


def _cosine(found: Mapping[str, np.ndarray], expected: Mapping[str, np.ndarray], unsure: Mapping[str, float]) -> float:
    parts = []
    for name, change in expected.items():
        size = np.linalg.norm(change) + unsure[name] or 1.0
        parts.append((found[name].astype(np.float64).ravel() / size, change.ravel() / size))
    left, right = (np.concatenate(side) for side in zip(*parts, strict=True))
    norms = np.linalg.norm(left) * np.linalg.norm(right)
    return float(left @ right / norms) if norms > 0 else 0.0
