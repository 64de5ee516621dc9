"""The judge: remakes the challenges, computes the reference, and concludes one evidence a layer."""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from assay import backends, families
from assay.backends.base import Artifact, Operation
from assay.challenge import Alone, Challenges
from assay.devices import Device
from assay.errors import UsageError, listed
from assay.evidence import LAYERS, MODULES, digest
from assay.evidence.case import Answer, Arrays, Case, Clock, Decoding, Software
from assay.evidence.operations import counted, decoding_work
from assay.evidence.reference import DRAWS, Reference
from assay.families.base import Config, Family, Tensors
from assay.families.generation import GeneratingFamily
from assay.installed import Findings
from assay.measure.clock import FEWEST
from assay.measure.peak import peak
from assay.measure.probes import Repeats
from assay.measure.processes import Usage
from assay.measure.sweep import Growth
from assay.roles.outputs import Outputs, row
from assay.roles.phases import PhaseLog
from assay.schema import Evidence, Precision, Status, Verdict
from assay.tensor_files import is_small
from assay.torch_threads import use_threads

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3

Call = tuple[str, Tensors, str]
"""A judged call: name, inputs, and the file that its outputs are in."""


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Judge.

    Args:
        request: `backend`, `device`, `precision`, `seed`, `config`, `checkpoint` (a path), `artifact`, `run` (a folder
            with outputs), `runner` (its response), `others` (of `twin` and `perturbed`: `checkpoint`, `run` and the
            `digests` of its outputs), `tensor` (which one is perturbed), `wall` and `cpu` (the runner's seconds),
            `installed` (what of its software is as the install records say).
        folder: this role's folder.

    Returns:
        `evidence`, the `work` of a call (`assay.evidence.operations`), `digests` of the reference, `notes` for the
        user, the `transcript` of one call, if it has one, and the `suspect` that a diagnosis should look into, if a
        check says so.
    """
    phase = PhaseLog(folder / "phases.jsonl")
    artifact = Artifact(**request["artifact"])
    family = families.load(artifact.family)
    checkpoint = Path(request["checkpoint"])
    config = json.loads(Path(request["config"]).read_text(encoding="utf-8"))
    _reuse_memory()
    use_threads(_threads(checkpoint))
    with phase("reference"):
        reference = Reference(family, checkpoint)
        # As large as a timed call, and the same in every environment: it tells operations and digests.
        fixed = Challenges(family, config, digest.SEED).timed(0)
        outputs, operations = counted(reference, fixed)
        work = {"operations": operations} | _decoding_work(reference, family, config)
        case = _case(request, family, config, artifact, reference, outputs, operations)
    with phase("evidence"):
        evidence: list[Evidence] = [module.judge(case) for module in MODULES.values()]
    with phase("digest"):
        digests = digest.digests(outputs, family.masks(fixed), case.traced, case.precision)
    return {
        "evidence": [each.model_dump(mode="json") for each in evidence],
        "work": work,
        "digests": [each.model_dump(mode="json") for each in digests],
        "notes": _notes(case),
        "transcript": _transcript(case, family),
        "suspect": case.suspect() if _inaccurate(evidence) else None,
    }


def _decoding_work(reference: Reference, family: Family, config: Config) -> dict[str, int]:
    if not isinstance(family, GeneratingFamily):
        return {}
    work = decoding_work(reference, family, Challenges(family, config, digest.SEED).decoded(0))
    return asdict(work)


def _inaccurate(evidence: Sequence[Evidence]) -> bool:
    return any(
        LAYERS[each.layer].get(check.name) is Status.INACCURATE and check.verdict is Verdict.FAILED
        for each in evidence
        for check in each.checks
    )


def _notes(case: Case) -> list[str]:
    """What a user should know of the checkpoint, whatever the evidence says."""
    extra = case.reference.extra
    return [f"{len(extra)} tensors have no place in the model that is judged: {listed(extra)}"] if extra else []


def _transcript(case: Case, family: Family) -> str | None:
    """What the backend's answer reads as. It is the reference's text where evidence passes: its tokens are."""
    first = case.challenges[0]
    if first.absent():
        return None
    try:
        return family.transcript(
            case.checkpoint, {"tokens": case.decoding.greedy[1]} if case.decoding else first.outputs
        )
    except UsageError:  # that there is no tokenizer, the preprocessor's note says
        return None


def _threads(checkpoint: Path) -> int:
    """One thread for small models: on a busy machine two stall each other for ten times the work."""
    from assay.machine import threads

    return 1 if is_small(checkpoint) else threads()


def _reuse_memory() -> None:
    """Have glibc keep what is freed: new pages for every result are a third of the time of a noise floor.

    What is larger than it can keep comes in huge pages: a weight matrix in float64 has thousands of small ones.
    """
    os.environ["THP_MEM_ALLOC_ENABLE"] = "1"  # torch reads it at its first allocation
    if hasattr(libc := ctypes.CDLL(None), "mallopt"):
        libc.mallopt(_M_MMAP_THRESHOLD, 32 * 2**20)  # the most that it takes
        libc.mallopt(_M_TRIM_THRESHOLD, 256 * 2**20)


def _case(
    request: dict[str, Any], family: Family, config: Config, artifact: Artifact, reference: Reference,
    another: Arrays, operations: int,
) -> Case:  # fmt: skip
    runner = request["runner"]
    challenges = Challenges(family, config, request["seed"])
    precision = Precision(request["precision"])
    judge = _Answers(family, precision, int(request["seed"][:8], 16))
    run = Outputs(Path(request["run"]), runner["digests"])
    shapes = len(family.challenges)
    decoding = runner["decoding"]
    kept = runner["kept"]
    judged_in_full = kept[:: max(1, len(kept) // FEWEST)][:FEWEST]
    others = [number for number in kept if number not in judged_in_full]
    calls = passes(challenges, judged_in_full)
    own = list(judge.answers(reference, calls, run))
    judged = judge.decoding(reference, challenges, decoding["number"], run) if decoding else None
    device, single = Device(**request["device"]), challenges.alone()
    clock = _clock(request, operations, peak(device, precision))
    sampled = [*_timed(challenges, others), *_grown(challenges, clock.growth)]
    return Case(
        backend=backends.load(request["backend"]),
        built_in=backends.built_in(request["backend"]),
        device=device,
        precision=precision,
        checkpoint=Path(request["checkpoint"]),
        artifact=artifact,
        challenges=own[:shapes],
        timed=own[shapes:-1],
        sampled=list(judge.answers(reference, sampled, run, noisy=False)),
        traced=own[-1],
        another=another,
        permuted=permuted(family, challenges, own, run.read("permuted")),
        alone=alone(family, single, own, run.read("alone")) if single else None,
        untraced=replace(own[-1], name="untraced", outputs=run.read("untraced")),
        decoding=judged,
        twin=judge.other_weights(challenges, **request["others"]["twin"]),
        perturbed=judge.other_weights(challenges, **request["others"]["perturbed"]),
        tensor=request["tensor"],
        reference=reference,
        clock=clock,
        operations=[Operation(**operation) for operation in runner["trace"]],
        libraries=runner["libraries"],
        software=Software(
            findings=Findings(**request["installed"]),
            mocks=runner["software"]["mocks"],
            whole=runner["software"]["whole"],
            told=runner["software"]["libraries"] is not None,
        ),
    )


def _clock(request: dict[str, Any], operations: int, limit: float | None) -> Clock:
    runner = request["runner"]
    usage, decoding = Usage(**runner["usage"]), runner["decoding"]
    return Clock(
        timed={"call": runner["samples"]} | ({"prefill": decoding["first"]} if decoding else {}),
        usage=usage + Usage(**decoding["usage"]) if decoding else usage,
        repeats={name: Repeats(**found) for name, found in runner["repeats"].items()},
        growth=Growth(**runner["growth"]),
        wall=request["wall"],
        cpu=request["cpu"],
        operations=operations,
        peak=limit,
    )


def passes(challenges: Challenges, timed: Sequence[int]) -> list[Call]:
    """The judged forward passes."""
    return [
        *_challenges(challenges.shapes()),
        *_timed(challenges, timed),
        ("traced", challenges.traced(), "traced"),
    ]


def _challenges(shapes: Iterable[tuple[str, Tensors]]) -> list[Call]:
    return [(name, inputs, f"challenge-{name}") for name, inputs in shapes]


def _timed(challenges: Challenges, numbers: Sequence[int]) -> Iterator[Call]:
    """Calls of the timed loop."""
    for number in numbers:
        yield f"timed {number}", challenges.timed(number), f"timed-{number}"


def _grown(challenges: Challenges, growth: Growth) -> Iterator[Call]:
    """The rows that were kept of the largest batch, each as a call of its own."""
    batch = challenges.larger(growth.batch, growth.number)
    for number in growth.rows:
        alone = {name: array[number : number + 1] for name, array in batch.items()}
        yield f"row {number} of a batch of {growth.batch}", alone, f"grown-{number}"


class _Answers:
    """Puts reference and noise beside the backend's outputs."""

    def __init__(self, family: Family, precision: Precision, seed: int) -> None:
        self._family = family
        self._precision = precision
        self._seed = seed

    def answers(
        self, reference: Reference, calls: Sequence[Call], run: Outputs, *, noisy: bool = True
    ) -> Iterator[Answer]:
        """Every call's answer; without noise, for a fifth of the cost, where it is only asked whether they follow."""
        draws = DRAWS if noisy else 0
        found = reference.with_noise([inputs for _, inputs, _ in calls], self._precision, self._seed, draws)
        for (name, inputs, file), (exact, spread) in zip(calls, found, strict=True):
            yield Answer(
                name=name, inputs=inputs, outputs=run.read(file), expected=exact, noise=spread,
                masks=self._family.masks(inputs),
            )  # fmt: skip

    def other_weights(
        self, challenges: Challenges, checkpoint: str, run: str, digests: Mapping[str, str]
    ) -> Answer:  # fmt: skip
        """The one call that was made with other weights than the checkpoint's."""
        calls = _challenges([challenges.of_other_weights()])
        reference = Reference(self._family, Path(checkpoint))
        (answer,) = self.answers(reference, calls, Outputs(Path(run), digests))
        return answer

    def decoding(self, reference: Reference, challenges: Challenges, number: int, run: Outputs) -> Decoding:
        """The judged sequences, each by one pass of the reference over its prompt and its tokens."""
        family = self._family
        assert isinstance(family, GeneratingFamily)
        forced, tokens = challenges.forced()
        prompts = {"forced": forced, "greedy": challenges.greedy(), "decoded": challenges.decoded(number)}
        chosen = {"forced": tokens} | {name: run.read(name)["tokens"] for name in ("greedy", "decoded")}
        calls = [(name, family.extended(prompt, chosen[name]), name) for name, prompt in prompts.items()]
        answers = {
            answer.name: answer.after(prompts[answer.name][family.target].shape[1])
            for answer in self.answers(reference, calls, run)
        }
        return Decoding(
            forced=answers["forced"],
            again=replace(answers["forced"], name="forced again", outputs=run.read("again")),
            greedy=(answers["greedy"], chosen["greedy"]),
            timed=(answers["decoded"], chosen["decoded"]),
        )


def permuted(family: Family, challenges: Challenges, answers: Sequence[Answer], outputs: Arrays) -> Answer:
    """What is expected of a challenge whose rows were turned around: its own answer, turned around."""
    name, inputs = challenges.permuted()
    answer = next(each for each in answers if each.name == name)

    def turned(key: str, array: np.ndarray, first: int = 0) -> np.ndarray:
        axes = (first, first + 1) if key in family.pairwise else (first,)
        return np.flip(array, axes)

    return Answer(
        name=f"{name}, rows turned around", inputs=inputs, outputs=outputs,
        expected={key: turned(key, array) for key, array in answer.expected.items()},
        noise={key: turned(key, array, 1) for key, array in answer.noise.items()},
        masks={key: turned(key, array) for key, array in answer.masks.items()},
    )  # fmt: skip


def alone(family: Family, single: Alone, answers: Sequence[Answer], outputs: Arrays) -> Answer:
    """What is expected of a row without its padding: what it has in the batch, where it is no padding."""
    answer = next(each for each in answers if each.name == single.workload)

    def part(key: str, array: np.ndarray, first: int = 0) -> np.ndarray:
        pairwise = key in family.pairwise
        array = row(array, single.row, pairwise=pairwise, first=first)
        return np.compress(single.kept, array, axis=first + 1) if key in answer.masks and not pairwise else array

    return Answer(
        name=f"row {single.row} of {single.workload}, alone", inputs=single.inputs, outputs=outputs,
        expected={key: part(key, array) for key, array in answer.expected.items()},
        noise={key: part(key, array, 1) for key, array in answer.noise.items()},
        masks={key: part(key, array) for key, array in answer.masks.items()},
    )  # fmt: skip
