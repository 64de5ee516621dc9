"""Where mutants are tried: a test model in one process, judged by assay's own layers against references made once.

A cell of a real run takes seconds, a trial needs thousands of judgements. So the model runs here in eager torch at the
declared precision, through the engine of the `cpu` column, and the layers that look at numbers (agreement, weights,
placement) judge what it gives, and of timing what is asked of the loop's outputs. The clock and provenance are not
exercised by a mutant: they count as passed.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from assay import backends, checkpoints, families
from assay.backends.base import Artifact, Engine, Operation, Tensors
from assay.backends.torch_eager import TorchDecoder, TorchEngine
from assay.challenge import Challenges
from assay.checkpoints import Checkpoint
from assay.decoding import decode
from assay.devices import cpu_device
from assay.evidence import agreement, placement, provenance, timing, weights
from assay.evidence.case import Answer, Case, Clock, Decoding, Software
from assay.evidence.deviation import K
from assay.evidence.float64 import TrueFloat64
from assay.evidence.reference import Reference
from assay.families.base import Family
from assay.families.generation import GeneratingFamily
from assay.installed import Findings
from assay.measure.processes import Usage
from assay.measure.sweep import Growth
from assay.roles.judge import alone, permuted
from assay.schema import Cell, Check, Evidence, Layer, Precision, Status

DTYPES = {Precision.F32: torch.float32, Precision.BF16: torch.bfloat16, Precision.F16: torch.float16}
EXACT = torch.float64

Outputs = dict[str, np.ndarray]

IDLE = Clock(
    timed={}, usage=Usage(claimed=1.0, cpu=1.0), repeats={}, growth=Growth(batch=1, large=[], small=1.0),
    wall=1.0, cpu=1.0, operations=0, peak=None,
)  # fmt: skip
NOTHING = Software(findings=Findings(), mocks=(), whole=True, told=True)
TORCH = ("libtorch_cpu.so",)
"""What is not exercised by a mutant. The libraries are those of the `cpu` column: the processes of a trial have all."""


@dataclass
class Subject:
    """What a fault is injected into.

    Attributes:
        module: the model, already in the arithmetic that it runs in.
        rng: where the fault's choices come from (which layer, which tensor); the same for checkpoint and twin.
        inputs, outputs: what is done to every call's inputs and outputs.
        decoder: the engine of a model that generates.
        arithmetic: in which every call computes, if it is not torch's own.
    """

    family: Family
    module: torch.nn.Module
    precision: Precision
    rng: np.random.Generator
    inputs: Callable[[Outputs], Outputs] = dict
    outputs: Callable[[Outputs], Outputs] = dict
    decoder: type[TorchDecoder] = TorchDecoder
    arithmetic: Callable[[], AbstractContextManager[Any]] = nullcontext

    def engine(self) -> Engine:
        """The subject as a runner would have it."""
        if isinstance(self.family, GeneratingFamily):
            return Spoiled(self.decoder(self.module, "cpu"), self)
        return Spoiled(TorchEngine(self.module, "cpu"), self)


class Spoiled(Engine):
    """An engine whose inputs and outputs a fault may touch."""

    def __init__(self, engine: TorchEngine, subject: Subject) -> None:
        self._engine = engine
        self._subject = subject

    def run(self, inputs: Tensors) -> Tensors:
        with self._subject.arithmetic():
            return self._subject.outputs(dict(self._engine.run(self._subject.inputs(dict(inputs)))))

    def prefill(self, inputs: Tensors) -> Tensors:
        with self._subject.arithmetic():
            return self._subject.outputs(dict(self._engine.prefill(self._subject.inputs(dict(inputs)))))

    def step(self, tokens: np.ndarray) -> Tensors:
        with self._subject.arithmetic():
            return self._subject.outputs(dict(self._engine.step(tokens)))

    def reset(self) -> None:
        self._engine.reset()

    def cache_size(self) -> int:
        return self._engine.cache_size()

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        with self._subject.arithmetic():
            outputs, operations = self._engine.trace(self._subject.inputs(dict(inputs)))
        return self._subject.outputs(dict(outputs)), operations


@dataclass(frozen=True)
class Observed:
    """What one engine gave: outputs by call, chosen tokens by sequence, and the trace."""

    outputs: Mapping[str, Outputs]
    tokens: Mapping[str, np.ndarray] = field(default_factory=dict)
    operations: tuple[Operation, ...] = ()


TIMED, IN_FULL = 8, 2
"""Calls of the timed loop, and how many of them are held against the bound."""


class Specimen:
    """A local test model at one precision with one challenge, its reference and noise floors made once.

    Args:
        family: the row.
        precision: what is declared.
        seed: that of the challenge.
    """

    def __init__(self, family: str, precision: Precision, seed: str) -> None:
        self.family = families.load(family)
        self.precision = precision
        self.checkpoint = checkpoints.local(family)
        self.twin = checkpoints.twin(self.checkpoint)
        self.challenges = Challenges(self.family, self.checkpoint.config(), seed)
        self.perturb(checkpoints.chosen_tensor(self.checkpoint.path, seed))
        self._seed = int(seed[:8], 16)
        self._loaded: dict[tuple[Path, str | None], torch.nn.Module] = {}

    def perturb(self, tensor: str) -> None:
        """Have the perturbed checkpoint be one with another tensor in another order."""
        self.tensor = tensor
        self.perturbed = checkpoints.perturbed(self.checkpoint, tensor, self.challenges.seed)
        self.__dict__.pop("_perturbed_truth", None)

    def subject(self, checkpoint: Checkpoint, dtype: torch.dtype, rng: np.random.Generator) -> Subject:
        """A fresh copy of the model in that arithmetic."""
        key = checkpoint.path, "eager" if dtype is EXACT else None  # as the reference, and as the `cpu` column
        if key not in self._loaded:
            self._loaded[key] = self.family.load(key[0], attention=key[1])
        return Subject(self.family, cast(copy.deepcopy(self._loaded[key]), dtype), self.precision, rng)

    def observe(self, engine: Engine) -> Observed:
        """Every judged call of the checkpoint, and the trace of one."""
        outputs = {name: _kept(engine.run(inputs)) for name, inputs in self._calls.items() if name != "traced"}
        outputs["permuted"] = _kept(engine.run(self.challenges.permuted()[1]))
        if single := self.challenges.alone():
            outputs["alone"] = _kept(engine.run(single.inputs))
        traced, operations = engine.trace(self._calls["traced"])
        outputs["traced"] = _kept(traced)
        tokens = {}
        if self._generates:
            prompt, forced = self.challenges.forced()
            for name in ("forced", "again"):
                outputs[name] = {"logits": decode(engine, prompt, forced.shape[1], forced).logits}
            for name, chosen in self._prompts.items():
                found = decode(engine, chosen, forced.shape[1])
                outputs[name], tokens[name] = {"logits": found.logits}, found.tokens
        return Observed(outputs, tokens, tuple(operations))

    def observe_one(self, engine: Engine) -> Outputs:
        """The challenge that runs with the twin's weights, and with the perturbed checkpoint's."""
        return _kept(engine.run(self.challenges.of_other_weights()[1]))

    def effect(self, engine: Engine) -> float:
        """How far a faulty engine in float64 is from the reference, in noise floors; 0 where nothing changes.

        The worst row or channel of any judged call, room for chance taken off, as the bound is made: a mutant of
        effect e is off by e / K of its bound before any rounding.
        """
        with exact():
            found = {name: _kept(engine.run(inputs)) for name, inputs in self.challenges.shapes()}
            if self._generates:
                prompt, forced = self.challenges.forced()
                for name in ("forced", "again"):
                    found[name] = {"logits": decode(engine, prompt, forced.shape[1], forced).logits}
        answers = [replace(self._truth[name], outputs=outputs) for name, outputs in found.items()]
        return self.distance(answers)

    def twin_effect(self, engine: Engine) -> float:
        """How far a faulty engine in float64 is from the twin's reference, in noise floors."""
        return self._other_effect(engine, self._twin_truth)

    def perturbed_effect(self, engine: Engine) -> float:
        """How far a faulty engine in float64 is from the perturbed checkpoint's reference, in noise floors."""
        return self._other_effect(engine, self._perturbed_truth)

    def _other_effect(self, engine: Engine, truth: Answer) -> float:
        with exact():
            found = self.observe_one(engine)
        return self.distance([replace(truth, outputs=found)])

    def distance(self, answers: list[Answer]) -> float:
        """The worst deviation of these answers in noise floors; infinite where values are missing or not finite."""
        if any(answer.broken() for answer in answers):
            return float("inf")
        return max(answer.deviation(self.precision).share for answer in answers) * K[self.precision]

    def answers(self, observed: Observed) -> list[Answer]:
        """The judged calls with the checkpoint's weights, decoded sequences of the engine's own choice left out."""
        known = [name for name in observed.outputs if name in self._truth]
        return [replace(self._truth[name], outputs=observed.outputs[name]) for name in known]

    def judge(self, own: Observed, twin: Outputs, perturbed: Outputs) -> Cell:
        """The cell that assay makes of these observations."""
        case = self._case(own, twin, perturbed)
        evidence = [
            *(layer.judge(case) for layer in (agreement, weights, placement)),
            passed(Layer.TIMING, timing.CONSEQUENCES, timing.sampled_follow(case.timed, case.sampled, case.precision)),
            passed(Layer.PROVENANCE, provenance.CONSEQUENCES),
        ]
        return Cell(
            family=self.family.id, backend="cpu", size="tiny", precision=self.precision,
            workloads=self.family.workloads, checkpoint=self.checkpoint.ref(),
            evidence=tuple(evidence),
        )  # fmt: skip

    def _case(self, own: Observed, twin: Outputs, perturbed: Outputs) -> Case:
        def judged(name: str) -> Answer:
            return replace(self._truth[name], outputs=own.outputs[name])

        plain = [judged(name) for name, _ in self.challenges.shapes()]
        single = self.challenges.alone()
        return Case(
            backend=backends.load("cpu"), built_in=True, device=cpu_device(), precision=self.precision,
            checkpoint=self.checkpoint.path,
            artifact=Artifact(self.family.id, str(self.checkpoint.path), "checkpoint"),
            challenges=plain,
            timed=[judged(f"timed {number}") for number in range(IN_FULL)],
            sampled=[judged(f"timed {number}") for number in range(IN_FULL, TIMED)], traced=judged("traced"),
            another=self._truth["timed 0"].expected,
            permuted=permuted(self.family, self.challenges, plain, own.outputs["permuted"]),
            alone=alone(self.family, single, plain, own.outputs["alone"]) if single else None,
            decoding=self._decoding(own) if self._generates else None,
            twin=replace(self._twin_truth, outputs=twin),
            perturbed=replace(self._perturbed_truth, outputs=perturbed), tensor=self.tensor,
            untraced=judged("traced"), reference=self._reference, clock=IDLE, operations=own.operations,
            libraries=TORCH, software=NOTHING,
        )  # fmt: skip

    def _decoding(self, own: Observed) -> Decoding:
        forced = replace(self._truth["forced"], outputs=own.outputs["forced"])
        chosen = [self._own_choice(own, name) for name in self._prompts]
        again = replace(forced, name="forced again", outputs=own.outputs["again"])
        return Decoding(forced=forced, again=again, greedy=chosen[0], timed=chosen[1])

    def _own_choice(self, own: Observed, name: str) -> tuple[Answer, np.ndarray]:
        """A sequence that the engine chose, beside the reference's logits along it; made once for the same tokens."""
        tokens = own.tokens[name]
        key = (name, tokens.tobytes())
        if key not in self._chosen:
            whole = self._generating.extended(self._prompts[name], tokens)
            self._chosen[key] = self._beside(self._reference, {name: whole}, self._prompt_length(name))[name]
        return replace(self._chosen[key], outputs=own.outputs[name]), tokens

    @cached_property
    def _chosen(self) -> dict[tuple[str, bytes], Answer]:
        return {}

    @cached_property
    def _reference(self) -> Reference:
        return Reference(self.family, self.checkpoint.path)

    @property
    def _generates(self) -> bool:
        return isinstance(self.family, GeneratingFamily)

    @property
    def _generating(self) -> GeneratingFamily:
        assert isinstance(self.family, GeneratingFamily)
        return self.family

    @cached_property
    def _calls(self) -> dict[str, Tensors]:
        timed = {f"timed {number}": self.challenges.timed(number) for number in range(TIMED)}
        return {**dict(self.challenges.shapes()), **timed, "traced": self.challenges.traced()}

    @cached_property
    def _prompts(self) -> dict[str, Tensors]:
        return {"greedy": self.challenges.greedy(), "decoded": self.challenges.decoded(0)}

    def _prompt_length(self, name: str) -> int:
        prompt = self.challenges.forced()[0] if name == "forced" else self._prompts[name]
        return int(prompt[self._generating.target].shape[1])

    @cached_property
    def _truth(self) -> dict[str, Answer]:
        """Reference and noise beside every call, outputs left out."""
        found = self._beside(self._reference, self._calls)
        if self._generates:
            prompt, forced = self.challenges.forced()
            whole = {"forced": self._generating.extended(prompt, forced)}
            found |= self._beside(self._reference, whole, self._prompt_length("forced"))
            found["again"] = found["forced"]
        return found

    @cached_property
    def _twin_truth(self) -> Answer:
        return self._with_other_weights(self.twin)

    @cached_property
    def _perturbed_truth(self) -> Answer:
        return self._with_other_weights(self.perturbed)

    def _with_other_weights(self, checkpoint: Checkpoint) -> Answer:
        name, inputs = self.challenges.of_other_weights()
        return self._beside(Reference(self.family, checkpoint.path), {name: inputs})[name]

    def _beside(
        self, reference: Reference, calls: Mapping[str, Tensors], prompt: int | None = None
    ) -> dict[str, Answer]:
        every = list(calls.values())
        found = {}
        judged = reference.with_noise(every, self.precision, self._seed)
        for (name, inputs), (right, spread) in zip(calls.items(), judged, strict=True):
            answer = Answer(name, inputs, {}, right, spread, self.family.masks(inputs))
            found[name] = answer if prompt is None else answer.after(prompt)
        return found


def one_thread() -> None:
    """Begin a process of the trial: several of them share the cores."""
    import transformers

    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()


def killed(cell: Cell) -> bool:
    """Whether the judge did not take it for real."""
    return cell.status is not Status.REAL


def passed(layer: Layer, checks: Mapping[str, Status], *judged: Check) -> Evidence:
    """A layer of which this trial exercises these checks alone, or none."""
    names = [name for name in checks if name not in {check.name for check in judged}]
    made = (*judged, *(Check(name=name, value=0, bound=0, text="not exercised by this trial") for name in names))
    return Evidence(layer=layer, checks=made, not_judged=None if made else "not exercised by this trial")


@contextmanager
def exact() -> Iterator[None]:
    """True float64, as the reference has it."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        with TrueFloat64():
            yield
    finally:
        torch.set_default_dtype(before)


def cast(module: torch.nn.Module, dtype: torch.dtype) -> torch.nn.Module:
    """In this arithmetic as transformers loads a checkpoint: frequencies of rotary positions stay float32."""
    for owner in module.modules():
        for tensors in (owner._parameters, owner._buffers):
            for name, tensor in tensors.items():
                narrow = "inv_freq" in name and dtype is not EXACT
                if tensor is not None and tensor.is_floating_point() and not narrow:
                    tensor.data = tensor.data.to(dtype)
    return module


def _kept(outputs: Tensors) -> dict[str, Any]:
    return {name: np.array(array) for name, array in outputs.items()}
