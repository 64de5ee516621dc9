"""Placement: **where** did it run?

The runtime's own execution trace, device and precision of every operation, read by assay; and from outside, what the
process had mapped, and whether other processes computed for it. What a backend of another package says of
itself can speak against it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from assay.errors import listed
from assay.schema import Check, Evidence, Layer, Precision, Status, Verdict

if TYPE_CHECKING:
    from assay.backends.base import Operation
    from assay.evidence.case import Case

CONSEQUENCES: Mapping[str, Status] = {
    "elsewhere": Status.FALLBACK,
    "foreign_runtime": Status.FALLBACK,
    "helpers": Status.FALLBACK,
    "driver": Status.FALLBACK,
    "precision": Status.INACCURATE,
}
RUNTIME_LIBRARIES = (
    "libtorch",
    "libopenvino",
    "libonnxruntime",
    "onnxruntime_pybind11_state",
    "libtensorflow",
    "libjax",
    "xla_extension",
    "libggml",
    "libtvm",
    "libpaddle",
)
"""File-name prefixes of the libraries that can compute a transformer."""
DRIVERS = {"cuda": "libcuda.so"}
"""By kind of device, the driver's library: who computes there has it mapped."""
UNTOLD = "this system does not tell which libraries a process has mapped"
OWN_WORDS = "an engine of another package traces itself, which is no evidence"
ELSEWHERE = 0.01
"""The share of work that may run beside the device. Shapes, scalars and masks of a few elements are made on the
host by design; one layer out of a hundred would already be more."""
LEFT = 0.1
"""The share of products with weights that may be left in f32 where int8 is declared: with so many, weights take 1.3
times the bytes that they would."""
_LOWER = {"f32": {"bf16", "f16", "i8", "u8", "i4", "u4"}, "f16": {"i8", "u8", "i4", "u4"}}


def judge(case: Case) -> Evidence:
    """Device, foreign runtimes, helping processes, the device's driver and executed precision."""
    told, precision = _elsewhere(case), _precision(case)
    if not case.built_in:
        told, precision = _without_praise(told), _without_praise(precision)
    return Evidence(layer=Layer.PLACEMENT, checks=(told, _foreign(case), _helpers(case), _driver(case), precision))


def _without_praise(check: Check) -> Check:
    """What a trace says against its engine counts; what it says for it, when the engine wrote it, does not."""
    if check.verdict is Verdict.FAILED:
        return check
    return Check(name=check.name, text=f"{OWN_WORDS} (it says: {check.text})")


def _elsewhere(case: Case) -> Check:
    floating = [operation for operation in case.operations if operation.precision]
    compute = [operation for operation in floating if operation.compute]
    if not compute:
        return Check(name="elsewhere", text="the trace holds no matrix product, convolution or attention")
    device = case.device.id
    # A trace need not number its devices.
    away = [operation for operation in floating if operation.device not in (case.device.kind, device)]
    share = max(_share(away, floating), float(any(operation.compute for operation in away)))
    text = f"all of {len(floating)} traced operations, and of their work, ran on {device}"
    if away:
        names = sorted({f"{operation.name} on {operation.device}" for operation in away})
        text = (
            f"{len(away)} of {len(floating)} traced operations ({len(away) / len(floating):.1%}), "
            f"{_share(away, floating):.1%} of their work, ran elsewhere than on {device}: {listed(names)}"
        )
    return Check(name="elsewhere", value=share, bound=ELSEWHERE, text=text)


def _share(part: Sequence[Operation], whole: Sequence[Operation]) -> float:
    total = sum(operation.work for operation in whole)
    if total == 0:
        return len(part) / len(whole)
    return sum(operation.work for operation in part) / total


def _foreign(case: Case) -> Check:
    name = "foreign_runtime"
    if case.libraries is None:
        return Check(name=name, text=UNTOLD)
    own = [library for library in case.libraries if library.startswith(case.backend.libraries)]
    if not own:
        expected = ", ".join(case.backend.libraries)
        return Check(name=name, value=1, bound=0, text=f"no library of {case.backend.name} was mapped ({expected})")
    foreign = sorted({
        library for library in case.libraries
        if library.startswith(RUNTIME_LIBRARIES) and not library.startswith(case.backend.libraries)
    })  # fmt: skip
    text = f"no other runtime was mapped in the process that ran {case.backend.name}"
    if foreign:
        text = f"the process that ran {case.backend.name} had another runtime mapped: {listed(foreign)}"
    return Check(name=name, value=len(foreign), bound=0, text=text)


def _helpers(case: Case) -> Check:
    """Processor time of processes that the runner had started, for each second that its calls took."""
    usage = case.clock.usage
    value = usage.helpers / usage.claimed
    text = "no process that the runner had started computed during the timed calls"
    if usage.helpers:
        text = f"processes that the runner had started computed for {value:.1%} of the time of its calls"
    return Check(name="helpers", value=value, bound=ELSEWHERE, text=text)


def _driver(case: Case) -> Check:
    """How many drivers that the device needs the process had not mapped."""
    name, device = "driver", case.device
    if device.kind not in DRIVERS:
        return Check(name=name, value=0, bound=0, text=f"{device.id} needs no driver of its own")
    if case.libraries is None:
        return Check(name=name, text=UNTOLD)
    library = DRIVERS[device.kind]
    mapped = any(each.startswith(library) for each in case.libraries)
    text = f"{library}, without which nothing reaches {device.id}, was {'' if mapped else 'not '}mapped"
    return Check(name=name, value=int(not mapped), bound=0, text=text)


def _precision(case: Case) -> Check:
    if case.precision is Precision.INT8:
        return _integer_weights(case)
    declared = str(case.precision)
    lower = _LOWER.get(declared, set())
    compute = [operation for operation in case.operations if operation.compute and operation.precision]
    if not compute:
        return Check(name="precision", text="the trace holds no matrix product, convolution or attention")
    other = [operation for operation in compute if operation.precision != declared]
    wide = sum(operation.precision == "f32" for operation in other)
    if excused := 0 < wide <= case.reference.kept_wide(case.precision):
        other = [operation for operation in other if operation.precision != "f32"]
    # Integers are also how masks and indices are stored; only half floats betray a lowered operation there.
    other += [
        operation for operation in case.operations
        if not operation.compute and operation.precision in lower & {"bf16", "f16"}
    ]  # fmt: skip
    text = f"all of {len(compute)} matrix products, convolutions and attentions ran in {declared}"
    if excused:
        text += f", but for {wide} in f32, where transformers keeps their weights"
    if other:
        found = sorted({f"{operation.kernel} in {operation.precision}" for operation in other})
        text = f"{len(other)} operations ran in another precision than {declared}: {listed(found)}"
    return Check(name="precision", value=len(other), bound=0, text=text)


def _integer_weights(case: Case) -> Check:
    """The share of products with weights that read other ones than int8; all of them, if any computes in less than f32.

    A quantiser may leave some: what is split before it is read, or what has one output.
    """
    name, products = "precision", [operation for operation in case.operations if operation.compute]
    whole = [operation for operation in products if operation.weights == "i8"]
    wide = [f"{each.kernel} with weights in {each.weights}" for each in products if each.weights not in (None, "i8")]
    lowered = {
        f"{operation.kernel} in {operation.precision}" for operation in case.operations
        if operation.precision in (_LOWER["f32"] if operation.compute else {"bf16", "f16"})
    }  # fmt: skip
    if case.backend.quantiser and not wide:
        from assay.backends.quantised import quantiser

        found = quantiser(case.backend).products(Path(case.artifact.path))
        wide += found.wide
        lowered |= {f"{each} with activations in int8" for each in found.narrow}
    if not whole and not wide:
        return Check(name=name, text="the trace does not tell in which type any matrix product reads its weights")
    count = len(whole) + len(wide)
    text = f"all of {count} matrix products with weights read them in int8; arithmetic was in f32"
    if wide:
        text = f"{len(wide)} of {count} matrix products read weights of another type than int8: {listed(wide)}"
    if lowered:
        text = f"arithmetic was not in f32 everywhere: {listed(sorted(lowered))}"
    return Check(name=name, value=1 if lowered else len(wide) / count, bound=LEFT, text=text)
