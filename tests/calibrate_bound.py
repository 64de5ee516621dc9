"""Measures what the bound's factor K rests on: honest errors and the least lowering of precision, in noise floors.

    .nox/tests/bin/python tests/calibrate_bound.py 10

prints for every family and CPU column the errors of that many seeds, each judged call one value, and
beside them those of the same weights read as TF32 would read them (10 bits of mantissa).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from assay import backends, checkpoints, families
from assay.backends.base import Engine
from assay.challenge import Challenges
from assay.evidence.case import Answer
from assay.evidence.deviation import K
from assay.evidence.reference import ACCUMULATION, Reference
from assay.families.base import Family, Tensors
from assay.schema import Precision

UNITS = K[Precision.F32] * ACCUMULATION[Precision.F32]
COLUMNS = ("cpu", "openvino", "onnxruntime")


@contextmanager
def untimed(name: str) -> Iterator[None]:
    yield


def engine(name: str, family: str) -> Engine:
    backend = backends.load(name)
    artifact = backend.build(checkpoints.local(family), precision=Precision.F32)
    return backend.open(artifact, device=backend.devices()[0], precision=Precision.F32, phase=untimed)


def tf32_weights(family: Family) -> torch.nn.Module:
    module = family.load(checkpoints.local(family.id).path)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.copy_((parameter.view(torch.int32) & ~0x1FFF).view(torch.float32))
    return module


def floors(name: str, seeds: int) -> dict[str, list[float]]:
    """Errors in noise floors, by column."""
    family = families.load(name)
    checkpoint = checkpoints.local(name)
    reference = Reference(family, checkpoint.path)
    engines = {column: engine(column, name) for column in COLUMNS}
    lowered = tf32_weights(family)

    def lower(inputs: Tensors) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = lowered(**{key: torch.from_numpy(array) for key, array in inputs.items()})
        return {key: tensor.numpy() for key, tensor in found.items()}

    runs = {column: each.run for column, each in engines.items()} | {"weights as TF32": lower}
    found: dict[str, list[float]] = {column: [] for column in runs}
    for seed in range(seeds):
        calls = [*Challenges(family, checkpoint.config(), f"{seed:032x}").shapes()]
        noise = reference.noise([inputs for _, inputs in calls], Precision.F32, seed)
        for (label, inputs), spread in zip(calls, noise, strict=True):
            expected, masks = reference.outputs(inputs), family.masks(inputs)
            for column, run in runs.items():
                answer = Answer(label, inputs, dict(run(inputs)), expected, spread, masks)
                found[column].append(answer.deviation(Precision.F32).share * UNITS)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("seeds", type=int, help="challenges to draw for each family")
    seeds = parser.parse_args().seeds
    os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    torch.set_num_threads(1)
    print(f"errors in units of 2**-24, {seeds} seeds; the bound is {UNITS:g}")
    print(
        "| family | judged | "
        + " | ".join(f"{column}: median, max" for column in COLUMNS)
        + " | weights as TF32: min |"
    )
    print("|---" * (len(COLUMNS) + 3) + "|")
    for name in families.ORDER:
        found = floors(name, seeds)
        honest = [f"{np.median(found[column]):.2f}, {max(found[column]):.2f}" for column in COLUMNS]
        judged = sum(len(found[column]) for column in COLUMNS)
        print(f"| {name} | {judged} | {' | '.join(honest)} | {min(found['weights as TF32']):,.0f} |", flush=True)


if __name__ == "__main__":
    main()
