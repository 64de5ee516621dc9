"""One cell, from plan to record: build, run, preprocess, run the twin and the perturbed checkpoint, judge."""

from __future__ import annotations

import json
from collections.abc import Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from assay import cache, families, figures
from assay.challenge import draw_seed
from assay.devices import Device
from assay.evidence.placement import RUNTIME_LIBRARIES
from assay.installed import Findings, Installation, source_file
from assay.plan import SIZES, Place, Plan
from assay.roles.process import Answer, OnPhase, Request, RoleFailed
from assay.schedule import Work
from assay.schema import Cell, CheckpointRef, Diagnosis, Digest, Evidence, Phase, Status, Throttling, Unavailability
from assay.session_report import MachinePeak
from assay.tensor_files import is_small

# numpy imports its random package at the first use, which would be in a timed phase of every role.
RUNNER = ("assay.roles.runner", "assay.measure.clock", "numpy.random")
TORCH = (
    "torch",
    "torch.utils.flop_counter",
    "transformers",
    "assay.families.module",
    "assay.roles.builder",
    "assay.roles.judge",
    "assay.roles.perturber",
    "assay.roles.preprocessor",
    *RUNNER,
)
"""What the server of builders and judges imports ahead, beside the modelling modules and what the backend adds."""


def preloads(plan: Plan) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What the servers of builders and judges, and that of runners, import ahead; in a torch column it is the same."""
    own = [families.load(name) for name in plan.families]
    # What another package brings is imported by the role that needs it, and stays in no server.
    shared = [name for each in (plan.backend, *own) if (name := type(each).__module__).startswith("assay.")]
    modules = [module for family in own for module in family.modules]
    judge = tuple(dict.fromkeys((*TORCH, *plan.backend.builder_preload, *modules, *shared)))
    runner = tuple(dict.fromkeys((*plan.backend.preload, *RUNNER, *shared)))
    return judge, judge if "torch" in plan.backend.preload else runner


T = TypeVar("T")
Steps = Generator[Request, Answer, T]


def small(plan: Plan, family: str) -> bool:
    """Whether a cell's model is so small that its roles use one core each, and may run beside another cell's."""
    if family not in plan.models:
        return plan.size == SIZES[0]
    return is_small(plan.models[family].path)


class CellRun:
    """Runs one cell; what its roles answered is kept as it comes, so that a failure loses nothing."""

    def __init__(
        self, plan: Plan, place: Place, device: Device, folder: Path, on_phase: OnPhase, installation: Installation,
        peak: MachinePeak | None = None,
    ) -> None:  # fmt: skip
        self._plan = plan
        self._family = families.load(place.family)
        self._precision = place.precision
        self._device = device
        self._torch_preload, self._runner_preload = preloads(plan)
        self._folder = folder
        self._on_phase = on_phase
        self._installation = installation
        self._peak = peak
        self._large = not small(plan, place.family)
        self._seconds = 0.0
        self._phases: list[Phase] = []
        self._record: dict[str, Any] = {}

    def run(self) -> Work:
        """The record of the cell, whatever happened; the roles that it takes are yielded on the way."""
        started = datetime.now(UTC)
        try:
            yield from self._measure_and_judge()
        except RoleFailed as failed:
            self._phases.extend(failed.phases)
            self._seconds += failed.wall
            if failed.unavailable is not None:
                absent = Unavailability(reason=failed.failure.reason, looked_for=tuple(failed.unavailable))
                self._record |= {"unavailable": absent, "evidence": ()}
            else:
                self._record |= {"failure": failed.failure}
        return self._cell(started)

    def _cell(self, started: datetime | None = None) -> Cell:
        return Cell(
            family=self._family.id,
            backend=self._plan.backend.name,
            size=self._plan.size_of(self._family.id),
            precision=self._precision,
            device=self._device.name,
            workloads=self._family.workloads,
            phases=tuple(self._phases),
            started_at=started.isoformat(timespec="milliseconds") if started else None,
            seconds=self._seconds,
            **self._record,
        )

    def _measure_and_judge(self) -> Steps[None]:
        built = yield from self._build()
        # Drawn after the artifact is built, so that nothing in it can know the inputs.
        seed = self._plan.seed or draw_seed()
        self._record["seeds"] = {"challenge": seed}
        run = yield from self._run(built, "checkpoint", seed, "run", measure=True)
        preprocessed = yield from self._preprocess(built, seed)
        twin = yield from self._run(built, "twin", seed, "twin", measure=False)
        # Hashing what a runner used takes a second. Nothing is timed now, and other roles go on; the pool waits for it.
        with cache.scratch() as scratch, ThreadPoolExecutor(1) as beside:
            comparing = beside.submit(self._compared, run)
            built["perturbed"] = yield from self._perturb(built, seed, scratch)
            perturbed = yield from self._run(built, "perturbed", seed, "perturbed", measure=False)
            runs = {"run": run, "twin": twin, "perturbed": perturbed}
            yield from self._conclude(built, seed, preprocessed, runs, comparing.result())

    def _conclude(
        self, built: Mapping[str, Any], seed: str, preprocessed: Mapping[str, Any], runs: Mapping[str, Answer],
        installed: Findings,
    ) -> Steps[None]:  # fmt: skip
        """Judge, and record what was found."""
        run = runs["run"]
        self._record["software"] = dict(installed.served)
        judged = yield from self._judge(built, seed, runs, installed)
        self._record["evidence"] = tuple(Evidence.model_validate(each) for each in judged["evidence"])
        self._record["transcript"] = judged["transcript"]
        known = ["replayed: the inputs were known beforehand"] if self._plan.seed else []
        self._record["digests"] = tuple(Digest.model_validate(each) for each in judged["digests"])
        self._record["notes"] = (*judged["notes"], *preprocessed["notes"], *known)
        self._record["samples"] = samples = figures.samples(run.response, preprocessed["samples"])
        self._record["swept"] = swept = figures.swept(run.response)
        self._record["throttling"] = Throttling.model_validate(run.response["throttling"])
        self._record["metrics"] = figures.metrics(
            self._family, self._precision, built, run.response, run.phases, samples, swept, judged["work"],
            self._peak,
        )  # fmt: skip
        if judged["suspect"] and self._cell().status is Status.INACCURATE:
            self._record["diagnosis"] = yield from self._diagnose(built, seed, runs, judged["suspect"])

    def _call(
        self, role: str, preload: tuple[str, ...], content: Mapping[str, Any], name: str, *, alone: bool = False,
        imports: tuple[str, ...] = (), spins: bool = False,
    ) -> Steps[Answer]:  # fmt: skip
        """A role; one of a large model uses every core by itself."""
        answer = yield Request(
            role, preload, content, self._folder / name, alone or self._large, self._on_phase, imports, spins,
            self._seconds,
        )  # fmt: skip
        self._on_phase(role, "")
        self._phases.extend(answer.phases)
        self._seconds += answer.wall
        return answer

    def _build(self) -> Steps[dict[str, Any]]:
        model = self._plan.models.get(self._family.id)
        request: dict[str, Any] = {
            "family": self._family.id,
            "size": self._plan.size,
            "backend": self._plan.backend.name,
            "precision": self._precision,
            "model": {"path": str(model.path), "name": model.name, "revision": model.revision} if model else None,
        }
        exporting = self._plan.backend.export_preload
        # Where everything is in the cache, nobody waits for the imports of an exporter; beside a large model's, or with
        # its weights to be read twice, they do not matter.
        look = bool(exporting) and not self._large
        built: dict[str, Any] = {}
        if look:
            built = (yield from self._call("builder", self._torch_preload, request | {"look": True}, "look")).response
        if not built:
            self._phases.clear()  # of having looked
            request |= {"look": False}
            built = (
                yield from self._call("builder", self._torch_preload, request, "build", imports=exporting)
            ).response
        self._record["checkpoint"] = CheckpointRef.model_validate(built["checkpoint"]["ref"])
        return built

    def _run(self, built: Mapping[str, Any], which: str, seed: str, name: str, *, measure: bool) -> Steps[Answer]:
        backend = self._plan.backend
        request = {
            "backend": backend.name,
            "artifact": built[which]["artifact"],
            "device": asdict(self._device),
            "precision": self._precision,
            "config": built["config"],
            "seed": seed,
            "measure": measure,
        }
        # What runs beside others must not spin; where the judge's server has the runtime, it does for that.
        spins = measure or self._runner_preload != self._torch_preload
        return (yield from self._call("runner", self._runner_preload, request, name, alone=measure, spins=spins))

    def _perturb(self, built: Mapping[str, Any], seed: str, scratch: Path) -> Steps[dict[str, Any]]:
        request = {
            "family": self._family.id, "size": self._plan.size_of(self._family.id), "backend": self._plan.backend.name,
            "precision": self._precision, "seed": seed, "checkpoint": built["checkpoint"], "scratch": str(scratch),
        }  # fmt: skip
        return (yield from self._call("perturber", self._torch_preload, request, "perturb")).response

    def _preprocess(self, built: Mapping[str, Any], seed: str) -> Steps[dict[str, Any]]:
        request = {
            "family": self._family.id, "checkpoint": built["checkpoint"]["path"], "config": built["config"],
            "seed": seed,
        }  # fmt: skip
        answer = yield from self._call("preprocessor", self._torch_preload, request, "preprocess", alone=True)
        return answer.response

    def _compared(self, run: Answer) -> Findings:
        """The software that the runner used, beside its install records: in this process no engine ever ran."""
        seen = run.response["software"]
        return self._installation.compare(
            seen["modules"],
            seen["libraries"] or (),
            seen["code"],
            backend=source_file(self._plan.backend),
            runtimes=(*RUNTIME_LIBRARIES, *self._plan.backend.libraries),
        )

    def _judge(
        self, built: Mapping[str, Any], seed: str, runs: Mapping[str, Answer], installed: Findings
    ) -> Steps[dict[str, Any]]:
        run = runs["run"]
        request = {
            "backend": self._plan.backend.name,
            "device": asdict(self._device),
            "precision": self._precision,
            "seed": seed,
            "config": built["config"],
            "checkpoint": built["checkpoint"]["path"],
            "artifact": built["checkpoint"]["artifact"],
            "run": str(self._folder / "run"),
            "runner": run.response,
            "others": {
                name: {
                    "checkpoint": built[name]["path"],
                    "run": str(self._folder / name),
                    "digests": runs[name].response["digests"],
                }
                for name in ("twin", "perturbed")
            },
            "tensor": built["perturbed"]["tensor"],
            "installed": installed.to_json(),
            "wall": run.wall,
            "cpu": run.cpu,
        }
        return (yield from self._call("judge", self._torch_preload, request, "judge")).response

    def _diagnose(
        self, built: Mapping[str, Any], seed: str, runs: Mapping[str, Answer], suspect: Mapping[str, Any]
    ) -> Steps[Diagnosis]:
        """Where the difference enters; a diagnosis that fails says so, and costs the cell nothing else."""
        weights = suspect["weights"]
        outputs = "run" if weights == "checkpoint" else weights
        request = {
            "backend": self._plan.backend.name,
            "device": asdict(self._device),
            "precision": self._precision,
            "seed": seed,
            "config": built["config"],
            "suspect": suspect,
            "checkpoint": built[weights]["path"],
            "artifact": built[weights]["artifact"],
            "run": str(self._folder / outputs),
            "digests": runs[outputs].response["digests"],
            "kept": runs["run"].response["kept"],
            "number": (runs["run"].response["decoding"] or {}).get("number"),
        }
        try:
            answer = yield from self._call("diagnosis", self._torch_preload, request, "diagnosis")
        except RoleFailed as failed:
            self._phases.extend(failed.phases)
            self._seconds += failed.wall
            so_far = self._folder / "diagnosis" / "diagnosis.json"
            found = json.loads(so_far.read_text(encoding="utf-8")) if so_far.exists() else {}
            reason = f"the diagnosis ended in its phase {failed.failure.phase!r}: {failed.failure.reason}"
            whose = {"call": suspect["call"], "weights": weights}
            return Diagnosis.model_validate(whose | found | {"not_examined": reason})
        return Diagnosis.model_validate(answer.response)
