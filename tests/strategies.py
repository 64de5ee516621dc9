"""Made-up records: cells with given evidence, and hypothesis strategies for session reports."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from assay import backends, families
from assay.evidence import LAYERS
from assay.matrix import Matrix
from assay.merge import merge
from assay.schema import (
    Cell,
    Check,
    CheckpointRef,
    Diagnosis,
    Evidence,
    Failure,
    Layer,
    Metric,
    Precision,
    Swept,
    Unavailability,
    Workload,
)
from assay.session_report import Environment, Machine, SessionReport

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
WORKLOADS = (
    Workload(name="measured", batch=1, length=16), Workload(name="padded", batch=3, length=9, padded=True),
    Workload(name="decode", batch=1, length=16, new_tokens=32),
)  # fmt: skip
CPU = "Some Processor"


def moment(seconds: float) -> str:
    """So many seconds after the epoch of these tests."""
    return (EPOCH + timedelta(seconds=seconds)).isoformat(timespec="milliseconds")


def checkpoint(name: str = "bert-tiny", source: str = "local") -> CheckpointRef:
    """Another hash for every name."""
    return CheckpointRef.model_validate(
        {"sha256": hashlib.sha256(name.encode()).hexdigest(), "source": source, "name": name}
    )


def check(name: str, *, passed: bool | None = True, text: str | None = None) -> Check:
    """A check that passed, failed, or (None) could not be judged."""
    value = {True: 1e-7, False: 2.0, None: None}[passed]
    return Check(name=name, value=value, bound=1e-6, text=text or f"{name} was looked at")


def diagnosis() -> Diagnosis:
    """The program could not be run; the graph is guilty, or it."""
    skipped = check("exported program", passed=None, text="not examined: it did not run")
    stages = (check("torch"), skipped, check("ONNX", passed=False))
    return Diagnosis(call="padded", stages=stages, layer=check("encoder.layer.1", passed=False))


def evidence(changed: Mapping[tuple[Layer, str], bool | None] | None = None) -> tuple[Evidence, ...]:
    """Evidence of every layer, all of it passed but for the checks named."""
    changed = changed or {}
    found = [
        Evidence(layer=layer, checks=tuple(check(name, passed=changed.get((layer, name), True)) for name in names))
        for layer, names in LAYERS.items()
    ]
    return tuple(found)


def cell(family: str = "bert", backend: str = "cpu", **changes: Any) -> Cell:
    """A REAL cell, with these changes."""
    metrics = {
        "load_time": Metric(value=0.0123, unit="s"),
        "latency": Metric(value=1.9e-3, unit="s", low=1.85e-3, high=1.95e-3, samples=200),
        "peak_memory": Metric(value=123 * 2**20, unit="B"),
        "tokens_per_second": Metric(value=8421.05, unit="tokens/s", samples=200, better="higher"),
    }
    values = {
        "family": family, "backend": backend, "size": "tiny", "precision": "f32", "device": CPU,
        "workloads": WORKLOADS, "checkpoint": checkpoint(f"{family}-tiny"), "evidence": evidence(), "metrics": metrics,
        "samples": {"latency": (1.9e-3, 1.85e-3, 1.95e-3)}, "seconds": 3.2,
    }  # fmt: skip
    return Cell.model_validate(values | changes)


def swept(single: float = 1.9e-3) -> dict[str, tuple[Swept, ...]]:
    """Batches of 2 and 4 that take 1.2 and 2.3 times as long as one of 1; twice the length takes twice the time."""
    times = {("batch", 2): 1.2, ("batch", 4): 2.3, ("length", 32): 2}
    points = [
        (axis, Swept(workload=Workload.model_validate({"name": "measured", axis: size}),
                     time=Metric(value=factor * single, unit="s", samples=6)))
        for (axis, size), factor in times.items()
    ]  # fmt: skip
    return {axis: tuple(point for name, point in points if name == axis) for axis in ("batch", "length")}


def unavailable(family: str = "bert", backend: str = "cuda", **changes: Any) -> Cell:
    """A cell whose hardware is absent."""
    absent = Unavailability(reason="no NVIDIA driver", looked_for=("libcuda.so.1", "/dev/nvidia0"))
    return Cell.model_validate(
        {"family": family, "backend": backend, "size": "tiny", "precision": "f32", "unavailable": absent} | changes
    )


def failed(family: str = "bert", backend: str = "cpu", *, known: bool = False, **changes: Any) -> Cell:
    """A cell that broke before (or, `known`, after) its checkpoint was known."""
    failure = Failure(role="builder", phase="build", reason="killed by SIGSEGV", signal="SIGSEGV", log="one\ntwo\n")
    nothing = {"evidence": (), "metrics": {}, "samples": {}, "failure": failure}
    return cell(family, backend, **(nothing | ({} if known else {"checkpoint": None}) | changes))


def report(*cells: Cell, session: str = "s1", start: float = 0.0, **changes: Any) -> SessionReport:
    """A finished session with these cells."""
    machine = Machine(name="box", system="Linux", processor=CPU, cores=2, memory=8 * 2**30)
    environment = Environment(python="3.12.1", assay="0.1.0", packages={"torch": "2.13.0+cpu"}, threads=2)
    values = {
        "id": session, "backend": cells[0].backend if cells else "cpu", "started_at": moment(start),
        "finished_at": moment(start + 60), "machine": machine, "environment": environment,
        "planned": tuple(each.family for each in cells), "cells": cells,
    }  # fmt: skip
    return SessionReport.model_validate(values | changes)


def on(machine: str, base: SessionReport | None = None) -> Machine:
    """Another machine of the same make."""
    return (base or report()).machine.model_copy(update={"name": machine})


def matrix(*reports: SessionReport) -> Matrix:
    """All families and backends."""
    return merge(reports, families.names(), backends.columns())


def full_matrix() -> Matrix:
    """Every status, all families."""
    changed = {
        "bert": (Layer.AGREEMENT, "error", False),
        "t5": (Layer.AGREEMENT, "follows_inputs", False),
        "llama": (Layer.PLACEMENT, "elsewhere", False),
        "clap": (Layer.TIMING, "covered", None),
    }
    bad = [
        cell(family, "openvino", evidence=evidence({(layer, name): passed}))
        for family, (layer, name, passed) in changed.items()
    ]
    names = families.names()
    return matrix(
        report(*(cell(name) for name in names)),
        report(*(unavailable(name) for name in names), session="s2"),
        report(*bad, failed("clip", "openvino"), session="s3"),
    )


FAMILIES = ("bert", "clip")
BACKENDS = ("cpu", "cuda")

_kinds = st.sampled_from(("real", "mock", "open", "failed", "early", "unavailable", "blank"))


@st.composite
def cells(draw: st.DrawFn, backend: str) -> Cell:
    """Any kind of cell, of few families, checkpoints, devices and times, so that keys collide."""
    family = draw(st.sampled_from(FAMILIES))
    changes: dict[str, Any] = {
        "size": draw(st.sampled_from(("tiny", "tiny", "own"))),
        "precision": draw(st.sampled_from((Precision.F32, *Precision))),
        "started_at": draw(st.none() | st.integers(0, 5).map(moment)),
    }
    kind = draw(_kinds)
    if kind in ("unavailable", "blank"):
        found = unavailable(family, backend, **changes)
        return found if kind == "unavailable" else found.model_copy(update={"unavailable": None})
    source = "path" if changes["size"] == "own" else "local"
    changes["device"] = draw(st.sampled_from(("one", "two")))
    changes["checkpoint"] = checkpoint(draw(st.sampled_from(("red", "blue"))), source)
    if kind == "early":
        return failed(family, backend, **changes | {"checkpoint": None})
    if kind == "failed":
        return failed(family, backend, known=True, **changes)
    verdict = {"real": True, "mock": False, "open": None}[kind]
    return cell(family, backend, **changes, evidence=evidence({(Layer.AGREEMENT, "follows_inputs"): verdict}))


@st.composite
def reports(draw: st.DrawFn) -> SessionReport:
    """A report of one of few sessions; two of the same session may differ."""
    backend = draw(st.sampled_from(BACKENDS))
    machine = draw(st.sampled_from(("box", "tower")))
    return report(
        *draw(st.lists(cells(backend), max_size=4)),
        session=draw(st.sampled_from("abcdefgh")),
        start=draw(st.integers(0, 5)),
        backend=backend,
        machine=on(machine),
    )
