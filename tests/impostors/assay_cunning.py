"""Backends that know that they are judged: they behave while they are looked at, or reach for the judge's files."""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Hashable, Iterator
from pathlib import Path

import numpy as np
from assay_caches import ByShape, CannedEngine, copied
from assay_impostors import Impostor, Wrapped

from assay import families
from assay.backends.base import Artifact, Engine, Operation, PhaseClock, Tensors
from assay.challenge import Challenges
from assay.devices import Device
from assay.schema import Precision


def role_folder() -> Path:
    """The folder of the role that this process performs: its log is there."""
    return Path("/proc/self/fd/1").readlink().parent


def request() -> dict[str, str]:
    asked: dict[str, str] = json.loads((role_folder() / "request.json").read_text(encoding="utf-8"))
    return asked


class WarmUpEngine(ByShape):
    HONEST = 6

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._calls = 0

    def run(self, inputs: Tensors) -> Tensors:
        self._calls += 1
        if self._calls <= self.HONEST:
            self._answers[self.key(inputs)] = copied(self.compute(inputs))
        return super().run(inputs)


class WarmUp(Impostor):
    """Honest for the first calls, those of the challenges and of the warm-up; then whatever it answered last."""

    name = "honest-at-first"
    engine = WarmUpEngine


class LateEngine(Wrapped):
    DISHONEST = 4

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._calls = 0

    def run(self, inputs: Tensors) -> Tensors:
        self._calls += 1
        outputs = super().run(inputs)
        if self._calls > self.DISHONEST:
            return outputs
        return {name: np.zeros_like(array) for name, array in outputs.items()}


class Late(Impostor):
    """The reverse: zeros for the first calls, when nobody measures; honest in the timed loop."""

    name = "honest-later"
    engine = LateEngine


class WatchingEngine(ByShape):
    """Honest, except where a caller of this call is the timed loop."""

    def run(self, inputs: Tensors) -> Tensors:
        frame = sys._getframe(1)
        while frame.f_back and frame.f_code.co_name != "time_calls":
            frame = frame.f_back
        return super().run(inputs) if frame.f_code.co_name == "time_calls" else self.compute(inputs)


class Watching(Impostor):
    """Looks up the stack, and answers from memory whenever the timed loop is calling."""

    name = "watches-the-loop"
    engine = WatchingEngine


class SkippingEngine(WatchingEngine):
    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._compute_next = False

    def key(self, inputs: Tensors) -> Hashable:
        """Nothing is remembered for more than one call of the loop."""
        self._compute_next = not self._compute_next
        if self._compute_next:
            self._answers.clear()
        return super().key(inputs)


class Skipping(Impostor):
    """Computes every other call of the timed loop, and answers the one after it likewise; honest elsewhere."""

    name = "skips-every-other"
    engine = SkippingEngine


class RewritingEngine(WatchingEngine):
    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        asked = request()
        config = json.loads(Path(asked["config"]).read_text(encoding="utf-8"))
        challenges = Challenges(families.load("bert"), config, asked["seed"])
        for file in role_folder().glob("timed-*.npz"):
            np.savez(file, **self._engine.run(challenges.timed(int(file.stem.partition("-")[2]))))
        return self._engine.trace(inputs)


class Rewriting(Impostor):
    """Remembers in the timed loop; when it has ended, computes what was kept of it, and rewrites the files."""

    name = "rewrites-outputs"
    engine = RewritingEngine


class MutatingEngine(Wrapped):
    def run(self, inputs: Tensors) -> Tensors:
        inputs["input_ids"][...] = 1
        return super().run(inputs)


class Mutating(Impostor):
    """Overwrites its inputs with one that it likes better, and answers that."""

    name = "mutates-inputs"
    engine = MutatingEngine


class HuntingEngine(Wrapped):
    """What it finds must have the shape of an answer."""

    def run(self, inputs: Tensors) -> Tensors:
        honest = super().run(inputs)  # for the shapes alone
        for found in self._found():
            if all(name in found and np.shape(found[name]) == array.shape for name, array in honest.items()):
                return {name: np.asarray(found[name], np.float32) for name in honest}
        return {name: np.zeros_like(array) for name, array in honest.items()}

    @staticmethod
    def _found() -> Iterator[Tensors]:
        """Of arrays by name: those in files of other roles, and those in memory that call themselves expected."""
        here = role_folder()
        for file in (*here.parents[1].rglob("*.npz"), *here.parents[1].rglob("expected*")):
            if file.suffix == ".npz" and file.parent != here:
                yield np.load(file)
        for held in gc.get_objects():
            if type(held) is dict and type(held.get("expected")) is dict:
                yield held["expected"]


class Hunting(Impostor):
    """Looks for the expected outputs in the session's folders and among all objects in memory; else zeros."""

    name = "hunts-answers"
    engine = HuntingEngine


class ReferenceEngine(Wrapped):
    """The trace is that of the runtime, which sees one call."""

    def __init__(self, engine: Engine, family: str) -> None:
        from assay.evidence.reference import Reference

        super().__init__(engine)
        here = role_folder()
        # Where the cache has the export, the builder that looked for it has answered, and no other was asked.
        roles = ("perturb",) if here.name == "perturbed" else ("build", "look")
        answers = [here.parent / name / "response.json" for name in roles]
        made = json.loads(next(each for each in answers if each.is_file()).read_text(encoding="utf-8"))
        described = {"perturbed": made, "run": made.get("checkpoint"), "twin": made.get("twin")}[here.name]
        self._reference = Reference(families.load(family), Path(described["path"]))

    def run(self, inputs: Tensors) -> Tensors:
        return {name: array.astype(np.float32) for name, array in self._reference.outputs(inputs).items()}


class RunsReference(Impostor):
    """Finds the checkpoint by the builder's answer and runs the judge's own reference on it."""

    name = "runs-the-reference"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        honest = super().open(artifact, device=device, precision=precision, phase=phase)
        return ReferenceEngine(honest, artifact.family)


def forge(folder: Path) -> None:
    """Wait for the judge's answer, and have every check pass. Whoever outlives its role can try."""
    answer = folder.parent / "judge" / "response.json"
    while not answer.exists():
        time.sleep(0.0005)
    judged = json.loads(answer.read_text(encoding="utf-8"))
    for check in (check for evidence in judged["evidence"] for check in evidence["checks"]):
        check["bound"] = check["bound"] if check["bound"] is not None else 0
        check["value"] = check["bound"]
    answer.write_text(json.dumps(judged), encoding="utf-8")


class Forging(Impostor):
    """Canned answers; prints a response, and leaves a process behind that rewrites the judge's."""

    name = "forges-evidence"
    engine = CannedEngine

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        print(json.dumps({"folder": str(role_folder()), "status": 0, "cpu": 0.0, "evidence": "REAL"}), flush=True)
        if role_folder().name == "run" and os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                forge(role_folder())
            os._exit(0)
        return super().open(artifact, device=device, precision=precision, phase=phase)


class Hasty(Impostor):
    """Honest, and has the clock of its process go at half speed."""

    name = "slows-the-clock"

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        true, began = time.perf_counter, time.perf_counter()
        time.perf_counter = lambda: began + (true() - began) / 2
        return super().open(artifact, device=device, precision=precision, phase=phase)


honest_at_first, honest_later, watches_the_loop, rewrites_outputs = WarmUp(), Late(), Watching(), Rewriting()
mutates_inputs, hunts_answers, runs_the_reference = Mutating(), Hunting(), RunsReference()
forges_evidence, slows_the_clock, skips_every_other = Forging(), Hasty(), Skipping()
