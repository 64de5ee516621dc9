"""The preprocessor: times how raw samples become tensors, which needs transformers and is alike on every backend."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from assay import families
from assay.challenge import generator
from assay.errors import UsageError
from assay.measure.clock import uncollected
from assay.measure.statistics import steady
from assay.roles.phases import PhaseLog

SAMPLES = 10
"""Raw samples that are drawn and timed at once; one more warms up."""
SECONDS = 0.1
"""Time in which more are drawn, until the median is known to its target."""


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Time preprocessing.

    Args:
        request: `family`, `checkpoint` and `config` (paths), `seed`.
        folder: this role's folder.

    Returns:
        `samples`: seconds for each raw sample, none where the checkpoint has no processor; `notes` then says so.
    """
    phase = PhaseLog(folder / "phases.jsonl")
    family = families.load(request["family"])
    checkpoint = Path(request["checkpoint"])
    config = json.loads(Path(request["config"]).read_text(encoding="utf-8"))

    def raw(number: int) -> Callable[[], object]:
        return family.preprocessing(checkpoint, config, generator(request["seed"], "raw", number))

    samples: list[float] = []
    with phase("preprocessing"):
        try:
            raw(0)()
        except UsageError as error:
            reason = str(error).removeprefix(f"{checkpoint}: ")
            return {"samples": [], "notes": [f"{reason}; all inputs are synthetic"]}
        deadline = time.perf_counter() + SECONDS
        with uncollected():
            while not samples or (time.perf_counter() < deadline and not steady(samples)):
                calls = [raw(len(samples) + each) for each in range(1, SAMPLES + 1)]
                samples += map(_seconds, calls)
    return {"samples": samples, "notes": []}


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
