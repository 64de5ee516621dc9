"""The diagnosis of a cell that is INACCURATE: at which stage from torch to the runtime, and in which layer first?

Each stage runs the same judged call, on the CPU, in a process that the judged runner has never seen; the last one is
what the runner left. Whatever happens here, the cell keeps its evidence and its status.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from assay import backends, families
from assay.backends import cpu
from assay.backends.base import Artifact, Engine, Stages, Tensors
from assay.challenge import Challenges
from assay.decoding import decode
from assay.devices import Device, cpu_device
from assay.evidence.case import Answer, compared
from assay.evidence.layers import Expected, Layers, watched
from assay.evidence.reference import Reference
from assay.families.base import Family
from assay.families.generation import GeneratingFamily
from assay.machine import threads
from assay.roles.judge import passes
from assay.roles.outputs import Outputs
from assay.roles.phases import PhaseLog
from assay.schema import Check, Diagnosis, Precision, Verdict
from assay.torch_threads import use_threads

FOUND = "diagnosis.json"
"""What is known so far, in the role's folder: a stage may take the process down with it."""
TORCH, TARGET = "torch", "target runtime"
Phase = Callable[[str], AbstractContextManager[None]]


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Diagnose.

    Args:
        request: `backend`, `device`, `precision`, `seed`, `config`, `suspect` (the judge's), `checkpoint` (path) and
            `artifact` of the suspect's weights, `run` (a folder with outputs), their `digests`, `kept` and `number` (of
            timed calls).
        folder: this role's folder.

    Returns:
        A `Diagnosis`.
    """
    phase = PhaseLog(folder / "phases.jsonl")
    use_threads(threads())
    call = _call(request)
    with phase("reference"):
        answer, expected = _expected(request, call)
    return _Examination(request, folder, call, answer, expected, phase).run().model_dump(mode="json")


@dataclass(frozen=True)
class _Call:
    """A judged call: of a sequence, `prompt` and `tokens` beside the inputs of the pass over both."""

    name: str
    inputs: Tensors
    file: str
    prompt: Tensors | None = None
    tokens: np.ndarray | None = None

    def ask(self, engine: Engine) -> Tensors:
        """The outputs of an engine for it."""
        if self.prompt is None or self.tokens is None:
            return {name: np.array(array) for name, array in engine.run(self.inputs).items()}
        return {"logits": decode(engine, self.prompt, self.tokens.shape[1], self.tokens).logits}


def _call(request: Mapping[str, Any]) -> _Call:
    """The suspect, made again from the seed."""
    suspect, family = request["suspect"], families.load(request["artifact"]["family"])
    config = json.loads(Path(request["config"]).read_text(encoding="utf-8"))
    challenges = Challenges(family, config, request["seed"])
    name: str = suspect["call"]
    if suspect["kind"] == "pass":
        return next(_Call(*call) for call in passes(challenges, request["kept"]) if call[0] == name)
    assert isinstance(family, GeneratingFamily)
    prompt, tokens = challenges.forced()
    file = {"forced again": "again"}.get(name, name)
    if name in ("greedy", "decoded"):
        prompt = challenges.greedy() if name == "greedy" else challenges.decoded(request["number"])
        tokens = _outputs(request).read(file)["tokens"]
    return _Call(name, family.extended(prompt, tokens), file, prompt, tokens)


def _outputs(request: Mapping[str, Any]) -> Outputs:
    return Outputs(Path(request["run"]), request["digests"])


def _expected(request: Mapping[str, Any], call: _Call) -> tuple[Answer, Expected]:
    """What the runner left, beside what the reference and all of its modules give."""
    family: Family = families.load(request["artifact"]["family"])
    reference = Reference(family, Path(request["checkpoint"]))
    seed = int(request["seed"][:8], 16)
    exact, noise, expected = reference.watched(call.inputs, Precision(request["precision"]), seed)
    outputs = _outputs(request).read(call.file)
    answer = Answer(call.name, call.inputs, outputs, exact, noise, family.masks(call.inputs))
    if call.prompt is not None and isinstance(family, GeneratingFamily):
        answer = answer.after(call.prompt[family.target].shape[1])
    return answer, expected


class _Examination:
    """Stage by stage until one fails, then its layers."""

    def __init__(
        self, request: Mapping[str, Any], folder: Path, call: _Call, answer: Answer, expected: Expected, phase: Phase
    ) -> None:
        self._folder = folder
        self._call = call
        self._answer = answer
        self._expected = expected
        self._phase = phase
        self._backend = backends.load(request["backend"])
        self._artifact = Artifact(**request["artifact"])
        self._checkpoint = Path(request["checkpoint"])
        self._device = Device(**request["device"])
        self._precision = Precision(request["precision"])
        self._found = Diagnosis(call=call.name, weights=request["suspect"]["weights"])
        self._untold: frozenset[tuple[str, int]] = frozenset()

    def run(self) -> Diagnosis:
        """All that can be said; the target's own number is there whichever stage is guilty."""
        target = self._compared(TARGET, self._answer.outputs)
        layers = self._stage(TORCH, self._in_torch)
        if layers is not None and not self._found.guilty:
            # Where honest torch of this precision passes a module's bound, that bound tells nothing of what follows.
            failing = self._expected.failing(layers, self._answer.masks, self._call.name, self._precision)
            self._untold = frozenset(failing)
        stages, artifact = (None, self._artifact) if self._found.guilty else self._exported()
        for name, opened in stages.engines(artifact) if stages else ():
            layers = self._stage(name, partial(self._in_export, stages, opened))
            if self._found.guilty:
                break
        innocent = not self._found.guilty
        self._note(stages=(*self._found.stages, target))
        if not self._found.guilty:
            return self._note(not_examined="examined by itself, the call is within its bound")
        return self._in_target(stages, artifact) if innocent else self._named(layers)

    def _stage(self, name: str, run: Callable[[], tuple[Tensors, Layers]]) -> Layers | None:
        """One stage; what goes wrong in it is its finding."""
        with self._phase(name):
            try:
                outputs, layers = run()
            except Exception as error:  # noqa: BLE001 (whatever it is, the other stages can still be examined)
                self._note(stages=(*self._found.stages, Check(name=name, text=f"not examined: {_reason(error)}")))
                return None
            self._note(stages=(*self._found.stages, self._compared(name, outputs)))
            return layers

    def _in_torch(self) -> tuple[Tensors, Layers]:
        """The checkpoint in eager torch on the CPU, in the declared precision; of int8, in that of its arithmetic."""
        artifact = Artifact(self._artifact.family, str(self._checkpoint), "checkpoint")
        with watched() as seen, self._silent(cpu.BACKEND, artifact, cpu_device(), self._precision.arithmetic) as engine:
            outputs = self._call.ask(engine)
        return outputs, {} if self._call.prompt else seen.layers()

    def _exported(self) -> tuple[Stages | None, Artifact]:
        """What lies between torch and the runtime, and an artifact that lets its layers be watched."""
        with self._phase("export"):
            try:
                stages = self._backend.stages(self._checkpoint, self._artifact)
                if stages is None:
                    return None, self._artifact
                folder = self._folder / "watched"
                folder.mkdir()
                return stages, stages.watched(folder)
            except Exception as error:  # noqa: BLE001 (an exporter may fail in any way; the target is known anyway)
                self._note(stages=(*self._found.stages, Check(name="export", text=f"not examined: {_reason(error)}")))
                return None, self._artifact

    def _in_export(self, stages: Stages | None, opened: Callable[[], Engine]) -> tuple[Tensors, Layers]:
        """One step of the export."""
        with opened() as engine:
            outputs = self._call.ask(engine)
        return outputs, stages.layers(outputs, self._expected.exact) if stages else {}

    def _in_target(self, stages: Stages | None, artifact: Artifact) -> Diagnosis:
        """The backend once more, its layers watched: as modules of torch, or as values of the graph."""
        if self._call.prompt is not None:
            return self._named(None)
        with self._phase(TARGET):
            try:
                with watched() as seen, self._silent(self._backend, artifact, self._device, self._precision) as engine:
                    outputs = self._call.ask(engine)
            except Exception as error:  # noqa: BLE001 (the same)
                return self._note(not_examined=f"layers: {_reason(error)}")
        if self._compared(TARGET, outputs).verdict is not Verdict.FAILED:
            return self._note(not_examined="with its layers watched, the runtime is within the bound")
        layers = stages.layers(outputs, self._expected.exact) if stages else seen.layers()
        return self._named(layers)

    def _silent(self, backend: Any, artifact: Artifact, device: Device, precision: Precision) -> Engine:
        opened: Engine = backend.open(artifact, device=device, precision=precision, phase=_no_phase)
        return opened

    def _named(self, layers: Layers | None) -> Diagnosis:
        """The first layer whose output is beyond its bound."""
        if self._call.prompt is not None:
            return self._note(not_examined="layers of a sequence are not compared, its logits alone are")
        if not layers:
            return self._note(not_examined=f"the layers of {self._backend.name} cannot be watched")
        failing = self._expected.failing(layers, self._answer.masks, self._call.name, self._precision)
        first = next((key for key in failing if key not in self._untold), None)
        if first is None:
            compared_ = sum(key in self._expected.exact for key in layers)
            return self._note(not_examined=f"{compared_} modules are within their bounds, the output alone is not")
        check = self._expected.check(first, layers, self._answer.masks, self._call.name, self._precision)
        return self._note(layer=check)

    def _compared(self, name: str, outputs: Tensors) -> Check:
        return compared(name, replace(self._answer, outputs=outputs), self._precision)

    def _note(self, **found: Any) -> Diagnosis:
        """Keep what has been found, in a file too."""
        self._found = self._found.model_copy(update=found)
        (self._folder / FOUND).write_text(self._found.model_dump_json(), encoding="utf-8")
        return self._found


def _no_phase(_name: str) -> AbstractContextManager[None]:
    """The role has its own phases."""
    return nullcontext()


def _reason(error: Exception) -> str:
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed"
    return textwrap.shorten(f"{type(error).__name__}: {error}", 200, placeholder=" ...")
