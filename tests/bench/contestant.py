"""A process that holds one contestant: an engine of assay or another way to run the same model.

A process each, for thread pools of two runtimes in one disturb each other: this one waits in a read while the other
one computes. It reads requests from its standard input and answers on its standard output, a line of JSON each.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from assay import backends, families
from assay.backends.base import Artifact, Tensors
from assay.challenge import generator
from assay.decoding import decode
from assay.families.base import Family, accepted
from assay.families.generation import GeneratingFamily
from assay.measure.clock import uncollected
from assay.roles.server import silence_telemetry
from assay.schema import Precision, Workload
from tests.bench import peers
from tests.bench.setting import ASSAY, Setting

Call = Callable[[Tensors], Tensors]


def main() -> None:
    """Open what the first line names, and answer until there are no more lines."""
    silence_telemetry()
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what a runtime prints belongs to the log
    setting = Setting.from_json(json.loads(sys.stdin.readline()))
    contestant = Contestant(setting)
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(contestant.asked(json.loads(line))), file=answers, flush=True)


class Contestant:
    """A way to run a model, and fresh inputs for it."""

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._family = families.load(setting.family)
        self._config = json.loads(Path(setting.config).read_text(encoding="utf-8"))
        if setting.contestant == peers.BENCHMARK_APP:
            self._timed: Callable[[range], list[float]] = peers.benchmark_app(setting, self._inputs(0))
        else:
            self._call = engine(setting, self._family) if setting.contestant == ASSAY else peers.opened(setting)
            self._timed = self._loop

    def asked(self, request: dict[str, Any]) -> Any:
        """`{"block": [first, end]}`: seconds of calls with these inputs. `{"answer": n, "file": f}`: outputs, saved."""
        if "block" in request:
            return self._timed(range(*request["block"]))
        if self._timed != self._loop:
            return False  # benchmark_app shows no outputs
        np.savez(request["file"], **self._call(self._inputs(request["answer"])))
        return True

    def _loop(self, numbers: range) -> list[float]:
        """Seconds of each call, right after one another; their inputs are new, and made before the first."""
        seconds = []
        block = [self._inputs(number) for number in numbers]
        with uncollected():
            for inputs in block:
                started = time.perf_counter()
                self._call(inputs)
                seconds.append(time.perf_counter() - started)
        return seconds

    def _inputs(self, number: int) -> dict[str, np.ndarray]:
        return drawn(self._family, self._config, self._setting.workload, self._setting.seed, number)


def drawn(family: Family, config: dict[str, Any], workload: Workload, seed: str, number: int) -> dict[str, np.ndarray]:
    """Inputs number n: a prompt where tokens are to follow, else those of one pass."""
    rng = generator(seed, "bench", number)
    if workload.new_tokens:
        assert isinstance(family, GeneratingFamily)
        return family.prompt(config, workload, rng)
    return accepted(config, family.inputs(config, workload, rng))


def engine(setting: Setting, family: Family) -> Call:
    """The engine, as the runner opens and calls it."""
    backend = backends.load(setting.backend)
    opened = backend.open(
        Artifact(**setting.artifact), device=backend.devices()[0], precision=Precision.F32, phase=peers.untimed
    )
    if not setting.workload.new_tokens:
        return opened.run
    steps = setting.workload.new_tokens - 1  # the last step's token is chosen, and not fed

    def generate(inputs: Tensors) -> Tensors:
        done = decode(opened, inputs, steps)
        return {"tokens": np.concatenate((done.tokens, done.logits[:, -1].argmax(axis=-1)[:, None]), axis=1)}

    return generate


if __name__ == "__main__":
    main()
