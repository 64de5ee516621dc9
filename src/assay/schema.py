"""The records of a cell, which pass between the steps, and their JSON Schema.

Times are seconds and memory is bytes; everything else names its unit. A record refuses keys it
does not know, except the derived ones (`status`, `verdict`, ...): those are written for readers
of the JSON and ignored when it is read back, because assay concludes them anew from the numbers.
"""

from __future__ import annotations

from enum import StrEnum
from functools import cached_property
from typing import Literal

from pydantic import Field, computed_field, field_validator

from assay.records import Concluding, Finite, Record, Sha256, Timestamp

SCHEMA_VERSION: Literal[1] = 1
OWN = "own"
"""The size of a cell whose checkpoint the user brought."""


class Status(StrEnum):
    """What a cell's evidence leads to; `docs/judgement.md` has the decision table."""

    REAL = "REAL"
    INACCURATE = "INACCURATE"
    FALLBACK = "FALLBACK"
    MOCK = "MOCK"
    UNPROVEN = "UNPROVEN"
    FAILED = "FAILED"
    UNAVAILABLE = "UNAVAILABLE"
    PENDING = "PENDING"


class Layer(StrEnum):
    """A layer of evidence: one question about a cell."""

    AGREEMENT = "agreement"
    WEIGHTS = "weights"
    PLACEMENT = "placement"
    TIMING = "timing"
    PROVENANCE = "provenance"


class Verdict(StrEnum):
    """The answer of a layer, or of one check in it."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_JUDGED = "not_judged"


class Precision(StrEnum):
    """What a backend is told to compute in; at int8 the weights are integers, and the arithmetic is float32."""

    F32 = "f32"
    BF16 = "bf16"
    F16 = "f16"
    INT8 = "int8"

    @property
    def arithmetic(self) -> Precision:
        """What sums and products are made in."""
        return Precision.F32 if self is Precision.INT8 else self


FLOATS = (Precision.F32, Precision.BF16, Precision.F16)
"""Those whose weights are numbers of the arithmetic's own type."""


class Check(Concluding):
    """One number against one bound. A check without a number could not be judged; `text` says why."""

    name: str
    value: Finite | None = None
    bound: Finite | None = None
    sense: Literal["at_most", "at_least"] = "at_most"
    text: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """Concluded from value and bound alone."""
        if self.value is None or self.bound is None:
            return Verdict.NOT_JUDGED
        kept = self.value <= self.bound if self.sense == "at_most" else self.value >= self.bound
        return Verdict.PASSED if kept else Verdict.FAILED


class Evidence(Concluding):
    """The checks of one layer. Verdict, value, bound and text are those of its deciding check."""

    layer: Layer
    checks: tuple[Check, ...] = ()
    not_judged: str | None = None

    def check(self, name: str) -> Check | None:
        """The check of that name, if this layer made it."""
        return next((check for check in self.checks if check.name == name), None)

    @cached_property
    def _deciding(self) -> Check | None:
        """The first check that failed, else the first that could not be judged, else the first."""
        unjudged = None
        for check in self.checks:
            verdict = check.verdict
            if verdict is Verdict.FAILED:
                return check
            if verdict is Verdict.NOT_JUDGED and unjudged is None:
                unjudged = check
        return unjudged or (self.checks[0] if self.checks else None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def verdict(self) -> Verdict:
        """Failed if any check failed; passed only if every check passed."""
        deciding = self._deciding
        if self.not_judged is not None and (deciding is None or deciding.verdict is Verdict.PASSED):
            return Verdict.NOT_JUDGED
        return deciding.verdict if deciding else Verdict.NOT_JUDGED

    @computed_field  # type: ignore[prop-decorator]
    @property
    def value(self) -> float | None:
        """The deciding check's number."""
        deciding = self._deciding
        return deciding.value if deciding else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def bound(self) -> float | None:
        """The deciding check's bound."""
        deciding = self._deciding
        return deciding.bound if deciding else None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def text(self) -> str:
        """One sentence for people."""
        deciding = self._deciding
        if deciding and not (self.not_judged and deciding.verdict is Verdict.PASSED):
            return deciding.text
        return self.not_judged or "no check was made"


class Diagnosis(Concluding):
    """Where the difference of a cell that is INACCURATE enters, told by one judged call.

    Attributes:
        call: the call that was looked into (`assay.evidence.case.Case.suspect`).
        weights: whose weights it ran with.
        stages: its error after each stage from torch to the recorded outputs, in order. A stage that could not be
            examined has no number, and says why.
        layer: at the first stage that fails, the first module of the network whose output does; named by the check.
        not_examined: why no layer is named, or no stage.
    """

    call: str
    weights: Literal["checkpoint", "twin", "perturbed"] = "checkpoint"
    stages: tuple[Check, ...] = ()
    layer: Check | None = None
    not_examined: str | None = None

    @computed_field  # type: ignore[prop-decorator]
    @property
    def guilty(self) -> str | None:
        """The first stage that fails."""
        return next((stage.name for stage in self.stages if stage.verdict is Verdict.FAILED), None)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def text(self) -> str:
        """One sentence for people."""
        if self.guilty is None:
            return f"where the difference enters is not known: {self.not_examined or 'no stage is beyond its bound'}"
        before = [stage.name for stage in self.stages[: [each.name for each in self.stages].index(self.guilty)]]
        judged = [stage.name for stage in self.stages if stage.verdict is Verdict.PASSED]
        doubt = [name for name in before if name not in judged]
        where = f"the difference enters at {' or '.join((*doubt, self.guilty))}"
        return f"{where}, first in {self.layer.name}" if self.layer else where


class Metric(Record):
    """A figure with the confidence interval of its median (95 %) and the number of samples behind it.

    Of samples that it is the median of, `mad` is the median absolute deviation, `p90` and `p99` are percentiles, where
    there are 10 or 100 samples to tell them.
    """

    value: Finite
    unit: str
    low: Finite | None = None
    high: Finite | None = None
    mad: Finite | None = None
    p90: Finite | None = None
    p99: Finite | None = None
    samples: int = Field(1, ge=1)
    stable: bool = True
    better: Literal["lower", "higher", "neither"] = "lower"


class Phase(Record):
    """How long one phase of one role took, in seconds."""

    role: str
    name: str
    seconds: Finite


class Failure(Record):
    """Why a cell has no evidence: where it broke, how, and the end of that process's log."""

    role: str
    phase: str
    reason: str
    signal: str | None = None
    exit_code: int | None = None
    log: str = ""


class Unavailability(Record):
    """What hardware, driver or precision was looked for and not found."""

    reason: str
    looked_for: tuple[str, ...] = ()


class CheckpointRef(Record):
    """Which weights: SHA-256 over sorted tensor names, types, shapes, bytes and the configuration.

    `revision` is the commit's hash on the hub.
    """

    sha256: Sha256
    source: Literal["local", "path", "hub"]
    name: str
    revision: str | None = None


class Digest(Record):
    """The reference's output for inputs that are the same in every environment, as a few sums of it with random signs.

    `tolerance` is how far float64 arithmetic may move each of them (`assay.evidence.digest`).
    """

    output: str
    sums: tuple[Finite, ...]
    tolerance: Finite = Field(ge=0)


class Workload(Record):
    """A named shape of inputs. Lengths are tokens (new ones: decoded); `seconds` is sound; `frames` is video."""

    name: str
    batch: int = Field(1, ge=1)
    length: int = Field(0, ge=0)
    decoder_length: int = Field(0, ge=0)
    new_tokens: int = Field(0, ge=0)
    seconds: Finite = Field(0.0, ge=0)
    frames: int = Field(0, ge=0)
    padded: bool = False


class Swept(Record):
    """How long one call of a workload takes, of a row of growing ones; where they decode, one step."""

    workload: Workload
    time: Metric


class Throttling(Record):
    """For how long processor or device were kept from a cell's timed calls; None where the system does not tell.

    Attributes:
        seconds: in which it was timed.
        stolen: by the host of a virtual machine, of the core that lost most.
        quota: stopped because a control group had used up what it is granted.
        heat: slowed down, of the core or package that was so longest.
        device: a CUDA device slowed down for its power or heat.
    """

    seconds: Finite
    stolen: Finite | None = None
    quota: Finite | None = None
    heat: Finite | None = None
    device: Finite | None = None


class Cell(Concluding):
    """One family on one backend in one session: what was observed. The status is derived.

    `software` has the version of every distribution whose files the runner used, `digests` what its judge's reference
    gave for inputs that never change. `notes` are sentences about the checkpoint that no status follows from: no
    tokenizer, tensors left over. `transcript` is what the backend's outputs for one challenge read as, by the
    checkpoint's own tokenizer: the text that it generates, or hears. Nor does any follow from the `diagnosis`, which
    cells that are INACCURATE have, or from `throttling`. `swept` are the workloads that grow from the measured one: by
    `batch`, by `length`, and the batches of `decoding`.
    """

    family: str
    backend: str
    size: str
    precision: Precision
    device: str | None = None
    workloads: tuple[Workload, ...] = ()
    checkpoint: CheckpointRef | None = None
    evidence: tuple[Evidence, ...] = ()
    metrics: dict[str, Metric] = Field(default_factory=dict)
    samples: dict[str, tuple[Finite, ...]] = Field(default_factory=dict)
    swept: dict[str, tuple[Swept, ...]] = Field(default_factory=dict)
    throttling: Throttling | None = None
    phases: tuple[Phase, ...] = ()
    seeds: dict[str, str] = Field(default_factory=dict)
    software: dict[str, str] = Field(default_factory=dict)
    digests: tuple[Digest, ...] = ()
    notes: tuple[str, ...] = ()
    transcript: str | None = None
    failure: Failure | None = None
    unavailable: Unavailability | None = None
    diagnosis: Diagnosis | None = None
    started_at: Timestamp | None = None
    seconds: Finite | None = None

    @field_validator("evidence")
    @classmethod
    def _once_a_layer(cls, evidence: tuple[Evidence, ...]) -> tuple[Evidence, ...]:
        layers = [each.layer for each in evidence]
        if len(set(layers)) < len(layers):
            raise ValueError("holds a layer more than once")
        return evidence

    def layer(self, layer: Layer) -> Evidence | None:
        """This cell's evidence of one layer."""
        return next((evidence for evidence in self.evidence if evidence.layer is layer), None)

    @cached_property
    def _conclusion(self) -> tuple[Status, str]:
        from assay.status import conclude

        return conclude(self)

    @computed_field  # type: ignore[prop-decorator]
    @property
    def status(self) -> Status:
        """Concluded from the evidence (`assay.status`)."""
        return self._conclusion[0]

    @computed_field  # type: ignore[prop-decorator]
    @property
    def reason(self) -> str:
        """Why this status, in a sentence or two."""
        return self._conclusion[1]
