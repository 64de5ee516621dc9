"""Honest controls: runs that nobody tampered with, none of which may be taken for anything but real.

Every judged call of every engine is a judgement: torch at f32, bf16 and f16, ONNX Runtime and OpenVINO at f32 and with
weights in int8, over many seeds, shapes and draws of the weights, with inputs that are hard on arithmetic. So is what a
timed loop kept, of which it is asked whether each output is its own input's answer. Most are of tiny test models; the
whole trial has some of published size, and a trained checkpoint.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import numpy as np

from assay import backends, checkpoints, families, schema
from assay.backends.base import Engine, Tensors
from assay.backends.torch_eager import TorchEngine
from assay.challenge import Challenges, generator
from assay.checkpoints import Checkpoint
from assay.evidence import timing
from assay.evidence.case import Answer
from assay.evidence.deviation import K
from assay.evidence.reference import Reference
from assay.families.base import Config, Family, accepted
from assay.schema import FLOATS, Precision, Verdict
from tests.trial.lab import DTYPES, IN_FULL, TIMED, cast
from tests.zoo import trained

SIZES = TINY, BASE, OWN = "tiny", "base", schema.OWN
ENGINES = TORCH, *EXPORTED = "torch", "openvino", "onnxruntime"
PUBLISHED = (
    ("sentence-embeddings", BASE), ("sentence-embeddings", OWN), ("bert", BASE), ("t5", BASE),
)  # fmt: skip
"""Rows and sizes, beside tiny test models: of published dimensions, and MiniLM as it was trained."""
AT_ONCE = 8
"""Seeds whose calls go through the reference together."""


@dataclass(frozen=True)
class Judged:
    """The judgements of one engine over one draw of weights.

    Attributes:
        size: `tiny`, `base`, or `own` for the trained checkpoint.
        floors: for each judged call, its worst row or channel in noise floors, room for chance taken off.
        alarms: which calls were taken for faulty, by name.
    """

    family: str
    engine: str
    precision: str
    weights: int
    floors: list[float]
    alarms: list[str]
    size: str = TINY


def judge_all(
    family: str, precision: Precision, weights: int, seeds: int, exported: bool, size: str = TINY
) -> list[Judged]:
    """All engines of one family at one precision, with one draw of the weights."""
    checkpoint = checkpoints.opened(family, trained()) if size == OWN else checkpoints.local(family, size, weights)
    row = families.load(family)
    engines: dict[str, Engine] = {TORCH: _torch(row, checkpoint, precision)} if precision in FLOATS else {}
    if exported and precision.arithmetic is Precision.F32:
        engines |= {name: _opened(name, checkpoint, precision) for name in EXPORTED}
    reference = Reference(row, checkpoint.path)
    floors: dict[str, list[float]] = {name: [] for name in engines}
    alarms: dict[str, list[str]] = {name: [] for name in engines}
    for first in range(0, seeds, AT_ONCE):
        chunk = range(first, min(first + AT_ONCE, seeds))
        config = checkpoint.config()
        expected = list(_answers(row, config, reference, precision, chunk))
        loop = list(_loop(row, config, reference, precision, first))
        for name, engine in engines.items():
            for judged in _run(engine, expected):
                off = float("inf") if judged.broken() else judged.deviation(precision).share * K[precision]
                floors[name].append(off)
                if off > K[precision]:
                    alarms[name].append(f"{judged.name}: {off:.3g} floors")
            kept = _run(engine, loop)
            follow = timing.sampled_follow(kept[:IN_FULL], kept[IN_FULL:], precision)
            if (
                follow.verdict is not Verdict.PASSED or follow.bound != timing.OWN
            ):  # that nothing can be told is one too
                alarms[name].append(f"timed calls of seed {first}: {follow.text}")
    return [
        Judged(family, name, str(precision), weights, floors[name], alarms[name], size) for name in engines
    ]  # fmt: skip


def _run(engine: Engine, answers: Sequence[Answer]) -> list[Answer]:
    """With the outputs of this engine."""
    return [
        replace(answer, outputs={key: np.array(array) for key, array in engine.run(answer.inputs).items()})
        for answer in answers
    ]


def _loop(family: Family, config: Config, reference: Reference, precision: Precision, seed: int) -> Iterator[Answer]:
    """What is kept of a timed loop; the first are held against the bound."""
    challenges = Challenges(family, config, f"{seed:032x}")
    calls = [challenges.timed(number) for number in range(TIMED)]
    noise = [*reference.noise(calls[:IN_FULL], precision, seed), *({} for _ in calls[IN_FULL:])]
    for number, (inputs, right, spread) in enumerate(zip(calls, reference.all_outputs(calls), noise, strict=True)):
        yield Answer(f"timed {number}", inputs, {}, right, spread, family.masks(inputs))


def _answers(
    family: Family, config: Config, reference: Reference, precision: Precision, seeds: Sequence[int]
) -> Iterator[Answer]:
    def drawn(seed: int) -> Iterator[tuple[str, Tensors]]:
        yield from Challenges(family, config, f"{seed:032x}").shapes()
        yield from hard(family, config, seed, precision)

    calls = [(f"{name} of seed {seed}", inputs) for seed in seeds for name, inputs in drawn(seed)]
    judged = reference.with_noise([inputs for _, inputs in calls], precision, seeds[0])
    for (name, inputs), (right, spread) in zip(calls, judged, strict=True):
        yield Answer(name, inputs, {}, right, spread, family.masks(inputs))


def hard(family: Family, config: Config, seed: int, precision: Precision) -> Iterator[tuple[str, Tensors]]:
    """Inputs that are hard on arithmetic, of the shapes and kinds that the family knows."""

    def drawn(name: str, **shape: float) -> dict[str, np.ndarray]:
        workload = family.challenges[0].model_copy(update=shape)
        return accepted(config, family.inputs(config, workload, generator(f"{seed:032x}", "hard", name)))

    if family.challenges[0].length:
        yield "one token", drawn("one token", length=1, decoder_length=min(1, family.challenges[0].decoder_length))
        yield "long", drawn("long", length=LONG)
        if "attention_mask" in family.dynamic:
            padded = drawn("padded", batch=2, length=11)
            mask = np.zeros_like(padded["attention_mask"])
            mask[:, 0] = 1
            yield "all but one padded", {**padded, "attention_mask": mask}
    for raw in ("pixel_values", "input_features", "input_values"):
        if raw in family.dynamic:
            like = drawn(f"like {raw}")
            yield f"constant {raw}", {**like, raw: np.full_like(like[raw], 0.5)}
            yield f"zero {raw}", {**like, raw: np.zeros_like(like[raw])}
            if precision is not Precision.F16:  # whose largest number is 65,504
                yield f"extreme {raw}", {**like, raw: like[raw] * np.float32(100)}


LONG = 40
"""Tokens of a long text: what the shortest tower among the test models takes."""


def _torch(family: Family, checkpoint: Checkpoint, precision: Precision) -> Engine:
    return TorchEngine(cast(family.load(checkpoint.path), DTYPES[precision]), "cpu")


def _opened(name: str, checkpoint: Checkpoint, precision: Precision) -> Engine:
    backend = backends.load(name)
    artifact = backend.build(checkpoint, precision=precision)
    return backend.open(artifact, device=backend.devices()[0], precision=precision, phase=_untimed)


def _untimed(_name: str) -> AbstractContextManager[None]:
    return nullcontext()
