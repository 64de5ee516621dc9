"""The preprocessor: times how raw samples become tensors, which needs transformers and is alike on every backend."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from assay import families
from assay.challenge import generator
from assay.errors import UsageError
from assay.roles.phases import PhaseLog

SAMPLES = 10
"""Raw samples that are timed; one more warms up."""


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
    with phase("preprocessing"):
        try:
            warm_up, *calls = [
                family.preprocessing(checkpoint, config, generator(request["seed"], "raw", number))
                for number in range(SAMPLES + 1)
            ]
        except UsageError as error:
            reason = str(error).removeprefix(f"{checkpoint}: ")
            return {"samples": [], "notes": [f"{reason}; all inputs are synthetic"]}
        warm_up()
        samples = []
        for call in calls:
            started = time.perf_counter()
            call()
            samples.append(time.perf_counter() - started)
    return {"samples": samples, "notes": []}
