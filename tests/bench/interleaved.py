"""Both contestants side by side: a block of calls of one, a block of the other, until their ratio is known."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from types import TracebackType
from typing import Any, Self

import numpy as np

from assay.roles.process import role_environment
from tests.bench.peers import APP_SECONDS
from tests.bench.ratio import Round, ratio
from tests.bench.setting import Setting

BLOCK = 0.1
"""Seconds of one contestant's calls before it is the other's turn."""
MOST_CALLS = 500
"""Calls a second of a block, at the most."""
FEWEST, CHECK_EVERY = 8, 4
"""Rounds of a start at the least, and after how many more the interval is looked at."""
FEWEST_ALONE = 3
"""The same where a process is started for every block."""
SETTLE = 0.05
"""Seconds of rest before a block: threads of most runtimes spin for some time after the last call."""
TOLERANCE = 1e-3
"""Largest difference of two honest f32 runs, relative to the norm of the output: the most sensitive published size, T5,
has 3.5e-5 against float64, while a wrong mask or another checkpoint gives 0.1 and more."""
_SOME_DRAWS = 400


class Contestant:
    """One way to run a model, in a process of its own."""

    def __init__(self, setting: Setting) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (lives with it)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.contestant"], cwd=Path(__file__).parents[2],
            env=role_environment(spins=True),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, text=True,
        )  # fmt: skip
        self.name = f"{setting.contestant} ({setting.family}, {setting.backend})"
        self._number = 1
        self._ask(setting.to_json())

    def block(self, calls: int) -> list[float]:
        """Seconds of that many calls with inputs never used before; of several, after one that is not counted."""
        first = self._number
        self._number += calls + (calls > 1)
        seconds = [float(each) for each in self._ask({"block": [first, self._number]})]
        return seconds[1:] or seconds

    def answer(self, file: Path) -> dict[str, np.ndarray] | None:
        """Its outputs for inputs number 0; None where it does not show any."""
        if not self._ask({"answer": 0, "file": str(file)}):
            return None
        with np.load(file) as arrays:
            return dict(arrays)

    def _ask(self, request: Any) -> Any:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        if line := self._process.stdout.readline():
            return json.loads(line)
        self._process.wait()
        self._log.seek(0)
        end = self._log.read()[-4000:]
        self.close()
        raise ContestantEnded(f"{self.name} ended:\n{end}")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class ContestantEnded(Exception):
    """A contestant's process is gone; the message has the end of its log."""


class Disagreement(Exception):
    """The two do not compute the same."""


@dataclass(frozen=True)
class Timed:
    """One start of both: seconds of every call, by round, and the largest difference of outputs.

    For tokens the difference is the share of them that differ; None where a peer shows no outputs.
    """

    rounds: list[Round]
    difference: float | None


def timed(first: Contestant, second: Contestant, budget: float) -> Timed:
    """Rounds of a block each, in turn the one and the other first, until the ratio is known or the time is up.

    Args:
        first: the numerator of the ratio.
        second: its denominator.
        budget: seconds of rounds, once the fewest are there.

    Raises:
        Disagreement: their outputs for the same inputs are not those of the same model.
    """
    with tempfile.TemporaryDirectory() as folder:
        difference = _difference(*(each.answer(Path(folder, f"{n}.npz")) for n, each in enumerate((first, second))))
    calls = {each: calls_in(each, BLOCK) for each in (first, second)}
    rounds: list[Round] = []
    deadline = time.monotonic() + budget
    while len(rounds) < FEWEST or time.monotonic() < deadline:
        order = (first, second) if len(rounds) % 2 else (second, first)
        found = {}
        for each in order:
            time.sleep(SETTLE)
            found[each] = each.block(calls[each])
        rounds.append((found[first], found[second]))
        if len(rounds) >= FEWEST and len(rounds) % CHECK_EVERY == 0 and ratio(rounds, _SOME_DRAWS).known:
            break
    return Timed(rounds, difference)


def timed_alone(first: Callable[[], Contestant], second: Callable[[], Contestant], budget: float) -> Timed:
    """Rounds of a block each, by processes that are started for their block and end with it.

    For a peer that can do no other. A process that holds a model for longer than one block, as `timed` has them, is no
    equal of one that is started while it does: the one that was started first is mostly slower, by some percent
    (`tests.bench.started_first`).

    Args:
        first: starts the numerator of the ratio.
        second: starts its denominator, which runs as long as it does and has one figure of it.
        budget: seconds of rounds, once the fewest are there.
    """
    rounds: list[Round] = []
    calls = 0
    deadline = time.monotonic() + budget
    while len(rounds) < FEWEST_ALONE or time.monotonic() < deadline:
        found = {}
        for start in (first, second) if len(rounds) % 2 else (second, first):
            with start() as contestant:
                if start is first:
                    calls = calls or calls_in(contestant, APP_SECONDS)
                found[start] = contestant.block(calls if start is first else 1)
        rounds.append((found[first], found[second]))
    return Timed(rounds, None)


def calls_in(contestant: Contestant, seconds: float) -> int:
    """Calls that fill a block of so many seconds, from those that warm it up."""
    warm = [contestant.block(1)[0] for _ in range(2)]
    if min(warm) < seconds:
        warm = contestant.block(5)
    return max(1, math.ceil(min(MOST_CALLS * seconds, seconds / median(warm))))


def _difference(first: dict[str, np.ndarray] | None, second: dict[str, np.ndarray] | None) -> float | None:
    if first is None or second is None:
        return None
    if "tokens" in first:
        one, other = first["tokens"], second["tokens"]
        # Where two logits are nearly equal a rounding decides, and all that follows is another text.
        if one.shape != other.shape or (one[:, 0] != other[:, 0]).any():
            raise Disagreement(f"{one.tolist()} and {other.tolist()}")
        return float((one != other).mean())
    shared = first.keys() & second.keys()
    found = max(np.linalg.norm(first[name] - second[name]) / np.linalg.norm(second[name]) for name in shared)
    if not found <= TOLERANCE:
        raise Disagreement(f"outputs differ by {found:.3g} of their norm")
    return float(found)
