"""The judge: remakes the challenges, computes the reference, and concludes one evidence a layer."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from assay import backends, families
from assay.backends.base import Artifact, Operation
from assay.challenge import Challenges
from assay.devices import Device
from assay.errors import listed
from assay.evidence import LAYERS as CONSEQUENCES
from assay.evidence import agreement, placement, provenance, timing, weights
from assay.evidence.case import Answer, Case, Decoding
from assay.evidence.reference import Reference
from assay.families.base import Config, Family, Tensors
from assay.families.generation import GeneratingFamily
from assay.roles.phases import PhaseLog
from assay.schema import Evidence, Precision, Status, Verdict
from assay.tensor_files import is_small

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
LAYERS = (agreement, weights, placement, timing, provenance)


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Judge.

    Args:
        request: `backend`, `device`, `precision`, `seed`, `config`, `checkpoint` and `twin` (paths), `artifact`,
            `run` and `twin_run` (folders with outputs), `runner` (its response), `wall` (seconds).
        folder: this role's folder.

    Returns:
        `evidence`, `notes` for the user, and the `suspect` that a diagnosis should look into, if a check says so.
    """
    import torch

    phase = PhaseLog(folder / "phases.jsonl")
    artifact = Artifact(**request["artifact"])
    family = families.load(artifact.family)
    checkpoint = Path(request["checkpoint"])
    config = json.loads(Path(request["config"]).read_text(encoding="utf-8"))
    torch.set_num_threads(_threads(checkpoint))
    _reuse_memory()
    with phase("reference"):
        case = _case(request, family, config, artifact, checkpoint)
    with phase("evidence"):
        evidence: list[Evidence] = [layer.judge(case) for layer in LAYERS]
    suspect = case.suspect() if _inaccurate(evidence) else None
    found = [each.model_dump(mode="json") for each in evidence]
    return {"evidence": found, "notes": _notes(case), "suspect": suspect}


def _inaccurate(evidence: Sequence[Evidence]) -> bool:
    return any(
        CONSEQUENCES[each.layer].get(check.name) is Status.INACCURATE and check.verdict is Verdict.FAILED
        for each in evidence
        for check in each.checks
    )


def _notes(case: Case) -> list[str]:
    """What a user should know of the checkpoint, whatever the evidence says."""
    extra = case.reference.extra
    return [f"{len(extra)} tensors have no place in the model that is judged: {listed(extra)}"] if extra else []


def _threads(checkpoint: Path) -> int:
    """One thread for small models: on a busy machine two stall each other for ten times the work."""
    from assay.machine import threads

    return 1 if is_small(checkpoint) else threads()


def _reuse_memory() -> None:
    """Have glibc keep what is freed: new pages for every result are a third of the time of a noise floor."""
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the most that it takes
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


def _case(request: dict[str, Any], family: Family, config: Config, artifact: Artifact, checkpoint: Path) -> Case:
    runner = request["runner"]
    challenges = Challenges(family, config, request["seed"])
    precision = Precision(request["precision"])
    judge = _Answers(family, precision, int(request["seed"][:8], 16))
    run = Path(request["run"])
    shapes = list(challenges.shapes())
    decoding = runner["decoding"]
    calls = passes(challenges, runner["kept"])
    reference = Reference(family, checkpoint)
    own = list(judge.answers(reference, calls, run))
    judged = judge.decoding(reference, challenges, decoding["number"], run) if decoding else None
    twin_calls = [(name, inputs, f"challenge-{name}") for name, inputs in shapes]
    twin = list(judge.answers(Reference(family, Path(request["twin"])), twin_calls, Path(request["twin_run"])))
    return Case(
        backend=backends.load(request["backend"]),
        device=Device(**request["device"]),
        precision=precision,
        checkpoint=checkpoint,
        artifact=artifact,
        challenges=own[: len(shapes)],
        timed=own[len(shapes) : -1],
        traced=own[-1],
        decoding=judged,
        twin=twin,
        reference=reference,
        claimed=sum(runner["samples"]) + (sum(decoding["first"]) + sum(decoding["steps"]) if decoding else 0),
        wall=request["wall"],
        operations=[Operation(**operation) for operation in runner["trace"]],
        libraries=runner["libraries"],
        modules=runner["modules"],
    )


def passes(challenges: Challenges, timed: Sequence[int]) -> list[tuple[str, Tensors, str]]:
    """The judged forward passes: name, inputs, and the file that the outputs are in."""
    return [
        *((name, inputs, f"challenge-{name}") for name, inputs in challenges.shapes()),
        *((f"timed {number}", challenges.timed(number), f"timed-{number}") for number in timed),
        ("traced", challenges.traced(), "traced"),
    ]


class _Answers:
    """Puts reference and noise beside the backend's outputs."""

    def __init__(self, family: Family, precision: Precision, seed: int) -> None:
        self._family = family
        self._precision = precision
        self._seed = seed

    def answers(self, reference: Reference, calls: Sequence[tuple[str, Tensors, str]], run: Path) -> Iterator[Answer]:
        """Every call's answer: name, inputs, and the file that its outputs are in."""
        every = [inputs for _, inputs, _ in calls]
        expected, noise = reference.all_outputs(every), reference.noise(every, self._precision, self._seed)
        for (name, inputs, file), exact, spread in zip(calls, expected, noise, strict=True):
            yield Answer(
                name=name, inputs=inputs, outputs=kept(run, file), expected=exact, noise=spread,
                masks=self._family.masks(inputs),
            )  # fmt: skip

    def decoding(self, reference: Reference, challenges: Challenges, number: int, run: Path) -> Decoding:
        """The judged sequences, each by one pass of the reference over its prompt and its tokens."""
        family = self._family
        assert isinstance(family, GeneratingFamily)
        forced, tokens = challenges.forced()
        prompts = {"forced": forced, "greedy": challenges.greedy(), "decoded": challenges.decoded(number)}
        chosen = {"forced": tokens} | {name: kept(run, name)["tokens"] for name in ("greedy", "decoded")}
        calls = [(name, family.extended(prompt, chosen[name]), name) for name, prompt in prompts.items()]
        answers = {
            answer.name: answer.after(prompts[answer.name][family.target].shape[1])
            for answer in self.answers(reference, calls, run)
        }
        return Decoding(
            forced=answers["forced"],
            again=replace(answers["forced"], name="forced again", outputs=kept(run, "again")),
            greedy=(answers["greedy"], chosen["greedy"]),
            timed=(answers["decoded"], chosen["decoded"]),
        )


def kept(run: Path, name: str) -> dict[str, np.ndarray]:
    """The outputs that the runner left."""
    with np.load(run / f"{name}.npz", allow_pickle=False) as outputs:
        return dict(outputs)
