"""The runner: the runtime under test, alone in a process with numpy and the challenges.

It never sees a reference. What it observes of itself is observed by this module, not by the backend.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from assay import backends, families
from assay.backends.base import Artifact, Engine, Operation, Tensors
from assay.challenge import Challenges
from assay.decoding import Decoded, decode
from assay.devices import Device
from assay.evidence.timing import GROWN
from assay.families.base import Family
from assay.families.generation import GeneratingFamily
from assay.measure import memory, sweep
from assay.measure.clock import overhead, time_calls, time_decoding
from assay.measure.probes import Repeats, numbers, repeats
from assay.measure.processes import adopt_orphans
from assay.measure.sweep import Growth, Point
from assay.measure.throttling import Watch
from assay.roles.outputs import Written, row
from assay.roles.phases import PhaseLog
from assay.roles.software import mapped_libraries, seen_running, software
from assay.schema import Precision, Workload

CLOCK = "time"
"""The module whose clock is read: who replaces it there is looked for too."""
BUDGET = 0.5
"""Seconds of measuring a cell, once the least number of samples is there."""
LEAST = 30


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run the challenges, the timed loop and the traced call; with other weights one challenge.

    Args:
        request: `backend`, `artifact`, `device`, `precision`, `config` (a path), `seed`, `measure`.
        folder: this role's folder; outputs are written there as `.npz`.

    Returns:
        Samples, memory, trace, what was seen of the process, and the digest of every file of outputs.
    """
    written = Written(folder)
    phase = memory.Peaks(PhaseLog(folder / "phases.jsonl"))
    adopt_orphans()
    backend = backends.load(request["backend"])
    artifact = Artifact(**request["artifact"])
    family = families.load(artifact.family)
    config = json.loads(Path(request["config"]).read_text(encoding="utf-8"))
    challenges = Challenges(family, config, request["seed"])
    device = Device(**request["device"])
    with backend.open(artifact, device=device, precision=Precision(request["precision"]), phase=phase) as engine:
        if request["measure"]:
            response = _measured(engine, family, challenges, phase, written, backend.preload, artifact, device)
        else:
            with phase("challenges"):
                _challenge(engine, written, challenges.of_other_weights())
            response = {}
    return response | {"libraries": library_names(), "digests": written.digests}


def _challenge(engine: Engine, written: Written, *calls: tuple[str, Tensors]) -> None:
    for name, inputs in calls:
        written.save(f"challenge-{name}", engine.run(inputs))


def _variants(engine: Engine, challenges: Challenges, written: Written) -> None:
    """Judged inputs in another form, whose outputs follow from theirs: rows in another order, a row alone."""
    written.save("permuted", engine.run(challenges.permuted()[1]))
    if alone := challenges.alone():
        written.save("alone", engine.run(alone.inputs))


def _measured(
    engine: Engine, family: Family, challenges: Challenges, phase: memory.Peaks, written: Written,
    runtimes: Sequence[str], artifact: Artifact, device: Device,
) -> dict[str, Any]:  # fmt: skip
    first = challenges.timed(-1)
    with phase("first inference"):
        engine.run(first)
    with phase("challenges"):
        _challenge(engine, written, *challenges.shapes())
        _variants(engine, challenges, written)
    watch = Watch(device)
    with phase("measure"):
        timed = time_calls(engine.run, challenges.timed, budget=BUDGET, least=LEAST, choose=secrets.randbelow)
        for number, outputs in timed.kept.items():
            written.save(f"timed-{number}", outputs)
        on_device = _device_times(engine, challenges)
    decoding = _decoding(engine, family, challenges, phase, written) if isinstance(family, GeneratingFamily) else None
    figures = phase.figures() | _held(engine, artifact, device)
    with phase("repeat"):
        pairs = _repeats(engine, family, challenges, median(timed.samples))
    with phase("sweep"):
        grown, points = _batches(engine, family, challenges, median(timed.samples), pairs["call"], written)
        swept = {"batch": points, "length": _lengths(engine, family, challenges)}
        if isinstance(family, GeneratingFamily) and decoding:
            swept["decoding"] = _decoded_batches(engine, family, challenges, median(decoding["steps"]))
    throttled = watch.seen()
    with phase("trace"):
        written.save("untraced", engine.run(challenges.traced()))
        with seen_running() as ran:
            traced, operations = _trace(engine.trace(challenges.traced()))
        written.save("traced", traced)
    with phase("software"):
        found = software([engine, traced], ran, (*runtimes, CLOCK))
    return {
        "samples": timed.samples,
        "device_samples": on_device,
        "usage": asdict(timed.usage),
        "repeats": {name: asdict(found) for name, found in pairs.items()},
        "growth": asdict(grown),
        "swept": {name: [_plain(point) for point in found] for name, found in swept.items() if found},
        "overhead": overhead(challenges.timed(0), timed.kept[min(timed.kept)]),
        "kept": sorted(timed.kept),
        "decoding": decoding,
        "memory": figures,
        "throttling": throttled.model_dump(),
        "trace": [asdict(operation) for operation in operations],
        "software": found,
    }


def _device_times(engine: Engine, challenges: Challenges) -> list[float]:
    """A few calls by the device's own clock, beside what the host's says of them."""
    times: list[float] = []
    while len(times) < LEAST and isinstance(seconds := engine.device_time(challenges.timed(-2 - len(times))), float):
        times.append(seconds)
    return times


def _held(engine: Engine, artifact: Artifact, device: Device) -> dict[str, int | None]:
    """Memory that is held between calls, of the host and of the device."""
    return {
        **memory.steady(Path(artifact.path)),
        "device_memory": _number(engine.device_memory()),
        "driver_device_memory": memory.on_device(device.detail.get("uuid")),
    }


def _repeats(engine: Engine, family: Family, challenges: Challenges, typical: float) -> dict[str, Repeats]:
    """Calls that are made twice, and prefills that are."""
    pairs = {"call": repeats(engine.run, challenges.repeated, typical=typical)}
    if isinstance(family, GeneratingFamily):
        pairs["prefill"] = repeats(engine.prefill, challenges.prefilled, typical=typical, before=engine.reset)
    return pairs


def _batches(
    engine: Engine, family: Family, challenges: Challenges, typical: float, pairs: Repeats, written: Written
) -> tuple[Growth, list[Point]]:
    """Growing batches; of the largest one's outputs some rows are kept."""
    points, grown, outputs = sweep.batches(
        engine.run, challenges.larger, family.measured,
        single=typical, small=median(pairs.fresh), enough=GROWN, choose=secrets.randbelow,
    )  # fmt: skip
    arrays = {name: array for name, array in numbers(outputs).items() if array.ndim}
    for number in grown.rows:
        written.save(f"grown-{number}", {
            name: row(array, number, pairwise=name in family.pairwise) for name, array in arrays.items()
        })  # fmt: skip
    return grown, points


def _lengths(engine: Engine, family: Family, challenges: Challenges) -> list[Point]:
    longer = family.lengths(challenges.config)
    return sweep.lengths(engine.run, [(each, partial(challenges.longer, each)) for each in longer])


def _decoded_batches(
    engine: Engine, family: GeneratingFamily, challenges: Challenges, typical: float
) -> list[Point]:  # fmt: skip
    def sequence(workload: Workload, number: int) -> Decoded:
        return decode(engine, challenges.prompted(workload, number), workload.new_tokens)

    return sweep.decoded_batches(sequence, family.decoded, single=typical)


def _plain(point: Point) -> dict[str, Any]:
    return {"workload": point.workload.model_dump(), "samples": point.samples}


def _decoding(
    engine: Engine, family: GeneratingFamily, challenges: Challenges, phase: memory.Peaks, written: Written
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
    return {
        "first": timed.first,
        "steps": timed.steps,
        "number": timed.number,
        "cache": greedy.cache,
        "usage": asdict(timed.usage),
    }


def _trace(answer: object) -> tuple[Tensors, list[Operation]]:
    """A trace as an engine must give it; of anything else nothing is left, and the judge says so."""
    match answer:
        case [dict() as outputs, list() as operations]:
            return outputs, [operation for operation in operations if isinstance(operation, Operation)]
    return {}, []


def _number(answer: object) -> int | None:
    return answer if isinstance(answer, int) else None


def library_names() -> list[str] | None:
    """Names of the shared libraries mapped into this process; None where the system does not tell."""
    paths = mapped_libraries()
    return None if paths is None else sorted({Path(path).name for path in paths})
