"""What the judge has in hand when it judges a cell."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from assay.evidence.deviation import Deviation, K, Yardstick, worst
from assay.schema import Check, Precision

if TYPE_CHECKING:
    from assay.backends.base import Artifact, Backend, Operation
    from assay.devices import Device
    from assay.evidence.reference import Reference
    from assay.families.base import Tensors
    from assay.installed import Findings
    from assay.measure.probes import Repeats
    from assay.measure.processes import Usage
    from assay.measure.sweep import Growth

KEPT = 2**30
"""Parameters whose float64 copies the judge keeps; a larger model's stay float32 and are widened where they are used,
one matrix at a time, so that judging it takes hardly more memory than its checkpoint."""

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Answer:
    """One judged call: the backend's outputs beside the reference's and the noise around them."""

    name: str
    inputs: Tensors
    outputs: Arrays
    expected: Arrays
    noise: Arrays
    masks: Arrays

    def absent(self) -> list[str]:
        """The outputs that are missing, are no numbers, or have another shape."""
        shapes = {name: array.shape for name, array in self.outputs.items()}
        return [name for name, exact in self.expected.items() if shapes.get(name) != exact.shape]

    def broken(self) -> int:
        """Values that are missing or not finite; an absent output counts in full."""
        absent = self.absent()
        count = sum(self.expected[name].size for name in absent)
        for name, exact in self.expected.items():
            if name in absent:
                continue
            found = self.outputs[name]
            keep = np.ones(exact.shape[:-1], bool) if name not in self.masks else self.masks[name]
            count += int(np.count_nonzero(~np.isfinite(found[keep].astype(np.float64))))
        return count

    def after(self, prompt: int) -> Answer:
        """What prefill and steps gave: the logits from the last of a prompt's tokens on, of which there are so many."""
        return replace(
            self, masks={},
            expected={key: array[:, prompt - 1 :] for key, array in self.expected.items()},
            noise={key: array[:, :, prompt - 1 :] for key, array in self.noise.items()},
        )  # fmt: skip

    def deviation(self, precision: Precision, outputs: Arrays | None = None) -> Deviation:
        """The worst row or channel of any output; of other `outputs` than the backend's, if they are given."""
        found = self.outputs if outputs is None else outputs
        return worst(
            self._yardstick(name, precision).deviation(found[name], f"{name} in call {self.name!r}")
            for name in self.expected
        )

    def allowed(self, name: str, precision: Precision) -> float:
        """The largest norm of an output's error with which it can pass."""
        return self._yardstick(name, precision).allowed()

    def _yardstick(self, name: str, precision: Precision) -> Yardstick:
        if (name, precision) not in self._yardsticks:
            self._yardsticks[name, precision] = Yardstick(
                self.expected[name], self.noise[name], self.masks.get(name), factor=K[precision]
            )
        return self._yardsticks[name, precision]

    @cached_property
    def _yardsticks(self) -> dict[tuple[str, Precision], Yardstick]:
        return {}


@dataclass(frozen=True)
class Decoding:
    """Sequences of a family that generates; each answer's outputs are the logits that prefill and steps gave.

    Attributes:
        forced: with tokens drawn from the seed.
        again: the same once more, after a reset.
        greedy: each next token the likeliest; `tokens`, (batch, n), are what was chosen.
        timed: like greedy, one of the timed sequences, chosen by chance.
    """

    forced: Answer
    again: Answer
    greedy: tuple[Answer, np.ndarray]
    timed: tuple[Answer, np.ndarray]


@dataclass(frozen=True)
class Software:
    """By what software the call was served.

    Attributes:
        findings: the files that were used, compared with the install records by the parent.
        mocks: where objects of `unittest.mock` were found: in modules, in the engine, in its answer.
        whole: whether everything that the engine holds was looked at.
        told: whether the system says which libraries a process has mapped.
    """

    findings: Findings
    mocks: Sequence[str]
    whole: bool
    told: bool


@dataclass(frozen=True)
class Clock:
    """What the runner says of its time, and what the parent saw of it; seconds.

    Attributes:
        timed: of every timed call, and of every timed prefill, by these names.
        usage: of all timed calls, decoding included.
        repeats: calls and prefills that were made twice, by the same names.
        growth: the batch that grew.
        wall: for which the parent's clock saw the runner.
        cpu: processor time of the runner, as the system told the parent at its end.
        operations: floating-point operations of a timed call.
        peak: those that the device cannot exceed in a second; None where nobody tells.
    """

    timed: Mapping[str, Sequence[float]]
    usage: Usage
    repeats: Mapping[str, Repeats]
    growth: Growth
    wall: float
    cpu: float
    operations: int
    peak: float | None


@dataclass(frozen=True)
class Case:
    """All observations of a cell.

    Attributes:
        built_in: whether the backend is assay's own; what another one says of itself is no evidence.
        challenges, timed, traced: judged calls with the checkpoint's weights.
        sampled: further calls of the timed loop, and rows of the batch that grew, without noise around the reference.
        another: the reference's outputs for an input of the traced call's shape that is the same in every run.
        permuted: a challenge with its rows in another order.
        alone: a row of a padded challenge without its padding; None where no input is a mask.
        untraced: the traced call without a trace.
        decoding: judged sequences; None where the family does not generate.
        twin: one of these challenges with the twin's weights.
        perturbed: the same with one of the checkpoint's tensors in another order, and `tensor`, which one.
        reference: of the checkpoint, for questions that a layer asks itself.
        clock: all times.
        operations: the trace.
        libraries: shared libraries mapped in the runner; None where the system does not tell.
        software: what the runner had in its process, beside the install records.
    """

    backend: Backend
    built_in: bool
    device: Device
    precision: Precision
    checkpoint: Path
    artifact: Artifact
    challenges: Sequence[Answer]
    timed: Sequence[Answer]
    sampled: Sequence[Answer]
    traced: Answer
    another: Arrays
    permuted: Answer
    alone: Answer | None
    untraced: Answer
    decoding: Decoding | None
    twin: Answer
    perturbed: Answer
    tensor: str
    reference: Reference
    clock: Clock
    operations: Sequence[Operation]
    libraries: Sequence[str] | None
    software: Software

    def suspect(self) -> dict[str, str] | None:
        """The `call` that a diagnosis should look into, its `kind` and `weights`; None where none is beyond its bound.

        A forward pass comes before a sequence, which tells less of layers, and the checkpoint before other weights. Of
        several, one that is not finite comes first, then the one farthest beyond its bound.
        """
        passes = [*self.challenges, *self.timed, self.traced]
        decoding = self.decoding
        sequences = [decoding.forced, decoding.greedy[0], decoding.timed[0], decoding.again] if decoding else []
        groups = (
            ("pass", "checkpoint", passes), ("sequence", "checkpoint", sequences),
            ("pass", "twin", [self.twin]), ("pass", "perturbed", [self.perturbed]),
        )  # fmt: skip
        for kind, weights, answers in groups:
            shares = {
                answer.name: float("inf") if answer.broken() else answer.deviation(self.precision).share
                for answer in answers
            }
            worst_of = max(shares, key=lambda name: shares[name], default="")
            if shares.get(worst_of, 0) > 1:
                return {"call": worst_of, "kind": kind, "weights": weights}
        return None


def error_check(name: str, answers: Iterable[Answer], precision: Precision) -> Check:
    """The worst deviation of these answers as a check; not judged where values are missing or not finite."""
    answers = list(answers)
    if any(answer.broken() for answer in answers):
        return Check(name=name, text="cannot be compared: values are missing or not finite")
    found = worst(answer.deviation(precision) for answer in answers)
    return Check(
        name=name,
        value=found.error,
        bound=found.bound,
        text=f"relative error {found.error:.2g}, bound {found.bound:.2g}, {K[precision]:g} noise floors: {found.where}",
    )


def compared(name: str, answer: Answer, precision: Precision) -> Check:
    """The deviation of one answer as a check; fails by the number of values where they are missing or not finite."""
    if broken := answer.broken():
        return Check(name=name, value=broken, bound=0, text=f"{broken} values are missing or not finite")
    return error_check(name, [answer], precision)


def difference(left: Arrays, right: Arrays) -> dict[str, np.ndarray]:
    """Output by output, in float64."""
    return {name: left[name].astype(np.float64) - right[name].astype(np.float64) for name in left if name in right}
