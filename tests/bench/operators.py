"""Where a step of decoding in OpenVINO spends its time: `python -m tests.bench.operators FAMILY [SIZE]`.

The runtime's own counters, added up by operator, and the rest of a step, which is spent outside of operators.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Sequence
from statistics import median

import numpy as np

from assay import checkpoints, families
from assay.backends.openvino import BACKEND, OpenVinoDecoder
from assay.challenge import Challenges
from assay.families.generation import GeneratingFamily
from assay.report.markdown import as_table
from assay.schema import Precision
from tests.bench.peers import untimed

STEPS, WARM = 48, 8
COUNTED, BETWEEN = 8, 4
"""Steps whose operators are read, and those before each that let the threads forget it: reading takes milliseconds."""


def profiled(family: str, size: str) -> tuple[list[float], list[Counter[tuple[str, str]]]]:
    """Seconds of each step, and of the operators in each, by type and primitive."""
    row, checkpoint = families.load(family), checkpoints.local(family, size)
    assert isinstance(row, GeneratingFamily)
    artifact = BACKEND.build(checkpoint, precision=Precision.F32)
    challenges = Challenges(row, row.describe(checkpoint.path), "5eed")
    device = BACKEND.devices()[0]
    walls, operators = [], []
    with BACKEND.open(artifact, device=device, precision=Precision.F32, phase=untimed) as engine:
        assert isinstance(engine, OpenVinoDecoder)
        engine.trace(challenges.traced())  # counts operators from then on
        logits = np.array(engine.prefill(challenges.decoded(0))["logits"])
        for number in range(STEPS + COUNTED * BETWEEN):
            started = time.perf_counter()
            logits = np.array(engine.step(logits.argmax(axis=-1))["logits"])
            walls.append(time.perf_counter() - started)
            if number >= STEPS and not (number + 1) % BETWEEN:
                step: Counter[tuple[str, str]] = Counter()
                for each in engine._decoder.executed():
                    step[each.name, each.kernel] += each.work
                operators.append(step)
    return walls[WARM:STEPS], operators


def table(walls: Sequence[float], operators: Sequence[Counter[tuple[str, str]]]) -> str:
    """Markdown: medians over the steps, longest first."""
    wall = median(walls)
    spent = {each: median(step[each] for step in operators) for each in operators[0]}
    rest = wall - median(step.total() for step in operators)
    longest = sorted(spent.items(), key=lambda each: -each[1])
    rows = [(name, kernel, seconds) for (name, kernel), seconds in longest if seconds > wall / 200]
    rows += [("outside of operators", "", rest), ("**step**", "", wall)]
    return as_table(
        ("operator", "primitive", "µs", "share"),
        [(name, kernel, f"{1e6 * seconds:,.0f}", f"{seconds / wall:.1%}") for name, kernel, seconds in rows],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table of a family."""
    parser = argparse.ArgumentParser(prog="tests.bench.operators", description=(__doc__ or "").partition(":")[0])
    decoding = [name for name in families.names() if isinstance(families.load(name), GeneratingFamily)]
    parser.add_argument("family", choices=decoding, metavar="FAMILY")
    parser.add_argument("size", nargs="?", choices=("tiny", "base"), default="base")
    asked = parser.parse_args(arguments)
    print(table(*profiled(asked.family, asked.size)))


if __name__ == "__main__":
    main()
