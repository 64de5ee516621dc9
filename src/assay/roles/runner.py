"""The runner: the runtime under test, alone in a process with numpy and the challenges.

It never sees a reference. What it observes of itself is observed by this module, not by the backend.
"""

from __future__ import annotations

import json
import secrets
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from assay import backends, families
from assay.backends.base import Artifact, Engine, Operation, Tensors
from assay.challenge import Challenges
from assay.decoding import decode
from assay.devices import Device
from assay.families.base import Family
from assay.families.generation import GeneratingFamily
from assay.measure import memory
from assay.measure.clock import time_calls, time_decoding
from assay.roles.outputs import Written
from assay.roles.phases import PhaseLog
from assay.schema import Precision

BUDGET = 0.5
"""Seconds of measuring a cell, once the least number of samples is there."""
LEAST = 30


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the challenges; unless this is the twin, also the timed loop and the traced call.

    Args:
        request: `backend`, `artifact`, `device`, `precision`, `config` (a path), `seed`, `measure`.
        folder: this role's folder; outputs are written there as `.npz`.

    Returns:
        Samples, memory, trace, what was seen of the process, and the digest of every file of outputs.
    """
    written = Written(folder)
    phase = PhaseLog(folder / "phases.jsonl")
    memory.reset_peak()
    backend = backends.load(request["backend"])
    artifact = Artifact(**request["artifact"])
    family = families.load(artifact.family)
    config = json.loads(Path(request["config"]).read_text(encoding="utf-8"))
    challenges = Challenges(family, config, request["seed"])
    device = Device(**request["device"])
    with backend.open(artifact, device=device, precision=Precision(request["precision"]), phase=phase) as engine:
        with phase("first inference"):
            engine.run(challenges.timed(-1))
        with phase("challenges"):
            for name, inputs in challenges.shapes():
                written.save(f"challenge-{name}", engine.run(inputs))
        response = _measured(engine, family, challenges, phase, written) if request["measure"] else {}
    return response | {"libraries": mapped_libraries(), "modules": loaded_runtimes(), "digests": written.digests}


def _measured(
    engine: Engine, family: Family, challenges: Challenges, phase: PhaseLog, written: Written
) -> dict[str, Any]:
    with phase("measure"):
        timed = time_calls(engine.run, challenges.timed, budget=BUDGET, least=LEAST, choose=secrets.randbelow)
        for number, outputs in timed.kept.items():
            written.save(f"timed-{number}", outputs)
    decoding = _decoding(engine, family, challenges, phase, written) if isinstance(family, GeneratingFamily) else None
    figures = {
        "peak_memory": memory.peak(),
        "unique_memory": memory.unique(),
        "device_memory": _number(engine.device_memory()),
    }
    with phase("trace"):
        traced, operations = _trace(engine.trace(challenges.traced()))
        written.save("traced", traced)
    return {
        "samples": timed.samples,
        "kept": sorted(timed.kept),
        "decoding": decoding,
        "memory": figures,
        "trace": [asdict(operation) for operation in operations],
    }


def _decoding(
    engine: Engine, family: GeneratingFamily, challenges: Challenges, phase: PhaseLog, written: Written
) -> dict[str, Any]:
    """The judged sequences, then timed ones, of which one is kept."""
    with phase("decoding"):
        prompt, tokens = challenges.forced()
        for name in ("forced", "again"):
            written.save(name, {"logits": decode(engine, prompt, tokens.shape[1], tokens).logits})
        greedy = decode(engine, challenges.greedy(), family.forced.new_tokens)
        written.save("greedy", {"logits": greedy.logits, "tokens": greedy.tokens})
    with phase("measure decoding"):
        timed = time_decoding(
            lambda number: decode(engine, challenges.decoded(number), family.decoded.new_tokens),
            budget=BUDGET, choose=secrets.randbelow,
        )  # fmt: skip
        written.save("decoded", {"logits": timed.kept.logits, "tokens": timed.kept.tokens})
    return {"first": timed.first, "steps": timed.steps, "number": timed.number, "cache": greedy.cache}


def _trace(answer: object) -> tuple[Tensors, list[Operation]]:
    """A trace as an engine must give it; of anything else nothing is left, and the judge says so."""
    match answer:
        case [dict() as outputs, list() as operations]:
            return outputs, [operation for operation in operations if isinstance(operation, Operation)]
    return {}, []


def _number(answer: object) -> int | None:
    return answer if isinstance(answer, int) else None


def mapped_libraries() -> list[str] | None:
    """Names of the shared libraries mapped into this process; None where `/proc` does not tell."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return None
    paths = {line.split(maxsplit=5)[5] for line in maps.read_text().splitlines() if line.count(" /")}
    return sorted({Path(path).name for path in paths if ".so" in path})


def loaded_runtimes() -> list[str]:
    """Which of the known runtimes' Python packages this process has imported."""
    return sorted(name for name in ("torch", "openvino", "onnxruntime", "tensorflow", "jax") if sys.modules.get(name))
