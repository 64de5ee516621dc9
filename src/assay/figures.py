"""Every figure of a cell, from what its roles answered."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from assay.families.base import Config, Family
from assay.families.generation import GeneratingFamily
from assay.families.rates import rate
from assay.measure.statistics import duration, once
from assay.measure.sweep import knee
from assay.schema import Metric, Phase, Precision, Swept
from assay.session_report import MachinePeak

WIDTH = {Precision.F32: 4, Precision.BF16: 2, Precision.F16: 2, Precision.INT8: 1}
"""Bytes of a number of a weight matrix; of any other, those of the precision's arithmetic."""
PERCENT = "% of peak"


def samples(run: Mapping[str, Any], preprocessing: Sequence[float]) -> dict[str, tuple[float, ...]]:
    """The series behind the figures, by the name of the figure; seconds, in the order in which they were taken."""
    series = {"latency": run["samples"], "device_time": run["device_samples"], "preprocessing_time": preprocessing}
    if decoding := run["decoding"]:
        series |= {"time_to_first_token": decoding["first"], "time_per_output_token": decoding["steps"]}
    return {name: tuple(found) for name, found in series.items() if found}


def swept(run: Mapping[str, Any]) -> dict[str, tuple[Swept, ...]]:
    """The workloads that grew, by what did."""
    return {
        name: tuple(Swept(workload=point["workload"], time=duration(point["samples"])) for point in points)
        for name, points in run["swept"].items()
    }


def metrics(
    family: Family,
    precision: Precision,
    built: Mapping[str, Any],
    run: Mapping[str, Any],
    phases: Sequence[Phase],
    series: Mapping[str, Sequence[float]],
    grown: Mapping[str, Sequence[Swept]],
    work: Mapping[str, int],
    peak: MachinePeak | None,
) -> dict[str, Metric]:
    """Every figure, by name: times and memory, the family's own (its headline first), throughput, shares of the peak.

    Args:
        built: what the builder answered.
        run: what the runner answered.
        phases: of the runner.
        series: `samples`.
        grown: `swept`.
        work: what the judge counted of one call: `operations`; of decoding, `prefill`, `read` and `matrices`.
        peak: what the machine sustained before; None where it was not measured.
    """
    seconds = {phase.name: phase.seconds for phase in phases}
    figures = {
        "export_time": built["checkpoint"]["artifact"]["export_seconds"],
        "load_time": seconds.get("load"),
        "compile_time": seconds.get("compile"),
        "first_inference_time": seconds.get("first inference"),
        "harness_time": run["overhead"],
    }
    found = {name: once(value) for name, value in figures.items() if value is not None}
    times = {name: duration(each) for name, each in series.items()}
    found |= {name: times[name] for name in ("latency", "device_time", "preprocessing_time") if name in times}
    found |= {name: Metric(value=value, unit="B") for name, value in run["memory"].items() if value is not None}
    config = json.loads(Path(built["config"]).read_text(encoding="utf-8"))
    found |= _own(family, config, times, run)
    found |= _throughput(family, times, grown)
    return found | _utilization(times, precision, work, peak)


def _own(family: Family, config: Config, times: Mapping[str, Metric], run: Mapping[str, Any]) -> dict[str, Metric]:
    found = family.metrics(config, family.measured, times["latency"])
    if isinstance(family, GeneratingFamily) and run["decoding"]:
        first, each = times["time_to_first_token"], times["time_per_output_token"]
        found |= family.decoding_metrics(config, first, each, run["decoding"]["cache"])
    return found


def _throughput(
    family: Family, times: Mapping[str, Metric], grown: Mapping[str, Sequence[Swept]]
) -> dict[str, Metric]:  # fmt: skip
    """The most of a sweep of batches, the batch that reaches it, and the knee."""
    points = grown.get("decoding") if "time_per_output_token" in times else grown.get("batch")
    single = times.get("time_per_output_token", times["latency"])
    by_batch = {1: single} | {each.workload.batch: each.time for each in points or ()}
    best = max(by_batch, key=lambda batch: batch / by_batch[batch].value)
    bend = knee([(batch, time.value) for batch, time in by_batch.items()])
    return {
        "throughput": rate(by_batch[best], best, f"{family.item}/s"),
        "throughput_batch": Metric(value=best, unit="rows", better="neither"),
        "knee_batch": Metric(value=bend, unit="rows", better="neither"),
    }


def _utilization(
    times: Mapping[str, Metric], precision: Precision, work: Mapping[str, int], peak: MachinePeak | None
) -> dict[str, Metric]:
    """The work of a call, and the share of the machine's peak at which it was done.

    Of what decodes: operations of the prefill, bytes of a step.
    """
    decodes = "read" in work
    operations, time = (
        (work["prefill"], times["time_to_first_token"]) if decodes else (work["operations"], times["latency"])
    )
    found = {"operations": Metric(value=operations, unit="FLOP", better="neither")}
    if peak and (product := peak.products.get(precision.arithmetic)):
        found["model_flops_utilization"] = rate(time, 100 * operations / product.value, PERCENT)
    if decodes:
        others, step = work["read"] - work["matrices"], times["time_per_output_token"]
        read = work["matrices"] * WIDTH[precision] + others * WIDTH[precision.arithmetic]
        found["bytes_per_step"] = Metric(value=read, unit="B", better="neither")
        if peak:
            found["model_bandwidth_utilization"] = rate(step, 100 * read / peak.bandwidth.value, PERCENT)
    return found
