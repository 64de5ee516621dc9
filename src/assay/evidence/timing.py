"""Timing: **when** was the work done?

Measured calls get inputs never seen before; outputs of the timed loop, chosen by chance, are judged like any other.
The clock itself is tried: by the parent's clock, by processor time, by calls that are made twice, by a larger batch,
by looking at outputs once more, and by what the device could do at all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median
from typing import TYPE_CHECKING

from assay.errors import listed
from assay.evidence.agreement import follows
from assay.schema import Check, Evidence, Layer, Status, Verdict

if TYPE_CHECKING:
    import numpy as np

    from assay.evidence.case import Answer, Arrays, Case, Clock
    from assay.measure.probes import Repeats
    from assay.schema import Precision

CONSEQUENCES: Mapping[str, Status] = {
    "sampled_error": Status.INACCURATE,
    "sampled_follows_inputs": Status.MOCK,
    "covered": Status.MOCK,
    "cpu_covered": Status.MOCK,
    "busy": Status.FALLBACK,
    "repeated": Status.MOCK,
    "grows": Status.MOCK,
    "on_host": Status.MOCK,
    "settled": Status.MOCK,
    "peak": Status.MOCK,
    "traced_error": Status.UNPROVEN,
}
OWN = 0.5
"""How far an output may be from the reference's for its own input, in distances from there to the reference's for the
nearest other one. Whoever is nearer than half of the way is nearer to its own than to any other (triangle inequality),
and of two equal outputs for two inputs one at least is not. An answer to another input is off by the whole distance,
less what honest arithmetic may be off."""
BUSY = 0.5
"""The least share of the claimed time for which some thread must have been on a core, or have waited for one. Whatever
computes on the processor has one at every moment; what is missing to 1 is waking up."""
REPEATED = 0.5
"""The part of the fastest call with a new input that some call with a repeated one must take. Warm caches of the
processor save a few per cent; a remembered answer costs nothing, a remembered prefix a fifth. Where both take the same
time, all of six repeated calls are faster than all of 36 others once in five million cells (1 / C(42, 6)), whatever the
noise; than all of 12 prefills once in 18,000; and being twice as fast is rarer still."""
GROWN = 2.0
"""How many times as long every call of a larger batch must take. The batch grows until it does, so what a call costs
beside arithmetic hides nothing; and no noise that leaves a median known to 5 % doubles each of several calls."""
READ = 0.5
"""The largest share of a call that reading its outputs may take. They are written before, at the same speed."""


def judge(case: Case) -> Evidence:
    """The sampled outputs of the timed loop, and the clock."""
    from assay.evidence.case import error_check

    timed = [*case.timed, *([case.decoding.timed[0]] if case.decoding else [])]
    clock = case.clock
    return Evidence(
        layer=Layer.TIMING,
        checks=(
            error_check("sampled_error", timed, case.precision),
            sampled_follow(case.timed, case.sampled, case.precision),
            *_covered(clock),
            _busy(clock, case.device.kind),
            _repeated(clock),
            _grows(clock),
            _on_host(list(clock.repeats.values())),
            _settled(list(clock.repeats.values())),
            _peak(clock),
            _traced(case),
        ),
    )


def sampled_follow(timed: Sequence[Answer], sampled: Sequence[Answer], precision: Precision) -> Check:
    """Whether every output of the timed loop that was kept is the answer to its own input.

    That all change with their inputs is asked first, by their cosine: of a model that is wrong for every input, no more
    can be. Distances are in units of the error with which an output can pass, so that outputs of all kinds count by
    what they tell. An answer that honest error could turn into another input's is left out.

    Args:
        timed: calls with noise around the reference; what an error may be is known from them.
        sampled: further calls of the same shapes, without noise.
        precision: that of the bound.
    """
    import numpy as np

    answers = [*timed, *sampled]
    check = follows("sampled_follows_inputs", answers, "inputs of the timed loop", precision)
    if check.verdict is not Verdict.PASSED:
        return check
    units = {name: max(answer.allowed(name, precision) for answer in timed) for name in timed[0].expected}
    expected = [_vector(answer, answer.expected, units) for answer in answers]
    errors = np.array([
        np.linalg.norm(_vector(answer, answer.outputs, units) - exact)
        for answer, exact in zip(answers, expected, strict=True)
    ])  # fmt: skip
    ways = np.array([
        min(np.linalg.norm(other - exact) for other in expected if other is not exact) for exact in expected
    ])  # fmt: skip
    honest = np.sqrt(len(units))  # of vectors of which every output is within its bound
    if min(errors) > honest:
        return check
    told = ways * OWN > honest
    if not told.any():
        text = f"{check.text}; answers to different inputs are too close to tell more in {precision}"
        return check.model_copy(update={"text": text})
    value = float(max(errors[told] / ways[told]))
    text = f"outputs of the timed loop are at most {value:.2g} of the way from their own input's answer to another's"
    if not told.all():
        text += f"; {np.count_nonzero(~told)} of {len(told)} are too close to another's to tell in {precision}"
    if value > OWN:
        text = (
            f"outputs do not follow the inputs of the timed loop: one is {value:.2g} times as far from its own input's "
            f"answer as another's is"
        )
    return Check(name=check.name, value=value, bound=OWN, text=text)


def _vector(answer: Answer, outputs: Arrays, units: Mapping[str, float]) -> np.ndarray:
    """All outputs as one vector, each in its unit; what stands at padding is left out."""
    import numpy as np

    parts = []
    for name, unit in units.items():
        mask = answer.masks.get(name)
        array = outputs[name].astype(np.float64)
        parts.append((array if mask is None else np.where(mask[..., None], array, 0)).ravel() / unit)
    return np.concatenate(parts)


def _covered(clock: Clock) -> tuple[Check, Check]:
    """Neither time nor processor time is more than the parent saw."""
    claimed, cpu = clock.usage.claimed, clock.usage.cpu
    return (
        Check(
            name="covered", value=claimed, bound=clock.wall,
            text=f"{claimed:.2f} s of measured calls within {clock.wall:.2f} s of the parent's clock",
        ),
        Check(
            name="cpu_covered", value=cpu, bound=clock.cpu,
            text=f"{cpu:.2f} s of processor time in measured calls, of {clock.cpu:.2f} s that the system counted",
        ),
    )  # fmt: skip


def _busy(clock: Clock, kind: str) -> Check:
    """Whether the process computed while the clock ran.

    A process that waits idle for another device is not caught lying: then the check is open, and only there.
    """
    usage = clock.usage
    share = (usage.cpu + (usage.waited or 0.0)) / usage.claimed
    text = f"the process computed, or waited for a core, for {share:.0%} of the time of its measured calls"
    open_question = None
    if share < BUSY and kind != "cpu":
        open_question = f"{text}; what the device did meanwhile is not known"
    elif share < BUSY and usage.waited is None:
        open_question = f"{text}; this system does not tell how long threads waited for a core"
    if open_question:
        return Check(name="busy", text=open_question)
    return Check(name="busy", value=share, bound=BUSY, sense="at_least", text=text)


def _repeated(clock: Clock) -> Check:
    """The slowest call with a repeated input against the fastest with a new one."""
    parts = {name: max(found.repeated) / min(*found.fresh, *clock.timed[name]) for name, found in clock.repeats.items()}
    name = min(parts, key=lambda each: parts[each])
    text = (
        f"with an input that came before, every {name} took at most {parts[name]:.3g} times as long "
        f"as the fastest of {len(clock.timed[name])} with new ones"
    )
    if parts[name] >= REPEATED:
        text = (
            f"calls with an input that came before were not faster: the slowest {name} took {parts[name]:.3g} times "
            f"as long as the fastest with a new one"
        )
    return Check(name="repeated", value=parts[name], bound=REPEATED, sense="at_least", text=text)


def _grows(clock: Clock) -> Check:
    growth = clock.growth
    value = min(growth.large) / growth.small
    verb = "takes" if value >= GROWN else "takes no more than"
    text = f"a batch of {growth.batch} {verb} {value:.3g} times as long as a batch of 1"
    return Check(name="grows", value=value, bound=GROWN, sense="at_least", text=text)


def _on_host(repeats: list[Repeats]) -> Check:
    """Whether outputs were there when calls returned."""
    value = max(median(read / call for read, call in zip(each.read, each.repeated, strict=True)) for each in repeats)
    text = f"reading the outputs took {value:.1%} of a call"
    if kinds := sorted({kind for each in repeats for kind in each.kinds}):
        text += f"; they are no plain arrays: {listed(kinds)}"
    return Check(name="on_host", value=value, bound=READ, text=text)


def _settled(repeats: list[Repeats]) -> Check:
    changed, count = sum(each.changed for each in repeats), sum(each.outputs for each in repeats)
    if not count:
        return Check(name="settled", text="no output was numbers that could be looked at again")
    text = f"{changed} of {count} outputs changed after their call had returned"
    return Check(name="settled", value=changed, bound=0, text=text)


def _peak(clock: Clock) -> Check:
    """Operations a second, of the timed calls or of the largest batch: each of its rows takes as many at least."""
    if clock.peak is None:
        return Check(name="peak", text="what this device can do at most is not known")
    rows = {1: median(clock.timed["call"]), clock.growth.batch: min(clock.growth.large)}
    rates = {batch: batch * clock.operations / seconds for batch, seconds in rows.items()}
    batch = max(rates, key=lambda each: rates[each])
    text = (
        f"{rates[batch] / 1e9:,.3g} GFLOP/s in a batch of {batch}, "
        f"of at most {clock.peak / 1e9:,.3g} that such a device could reach"
    )
    return Check(name="peak", value=rates[batch], bound=clock.peak, text=text)


def _traced(case: Case) -> Check:
    """Whether watching changed the outputs: their distance is judged as one from the reference would be."""
    from assay.evidence.case import error_check

    traced, untraced = case.traced, case.untraced
    if traced.broken() or untraced.broken():
        return Check(name="traced_error", text="traced and untraced outputs cannot be compared: values are missing")
    apart = {
        name: exact + (untraced.outputs[name].astype(exact.dtype) - traced.outputs[name])
        for name, exact in traced.expected.items()
    }
    return error_check("traced_error", [replace(traced, name="untraced against traced", outputs=apart)], case.precision)
