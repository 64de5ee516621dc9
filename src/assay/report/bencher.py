"""Bencher Metric Format, https://bencher.dev/bmf.json.

The format has no units: times are nanoseconds, as in Bencher's own measure `latency`; everything else is as assay has
it, memory in bytes. Which direction is worse, a threshold in Bencher says.
"""

from __future__ import annotations

import json

from assay.matrix import Matrix
from assay.report.names import names
from assay.schema import Metric, Status

NANOSECONDS = 1e9


def files(matrix: Matrix) -> dict[str, str]:
    """`bencher.json`: a benchmark for each REAL cell, a measure for each of its figures."""
    found = {
        name: {metric_name.replace("_", "-"): _measure(metric) for metric_name, metric in cell.metrics.items()}
        for cell, name in zip(matrix.cells, names(matrix.cells, device=True), strict=True)
        if cell.status is Status.REAL and cell.metrics
    }
    return {"bencher.json": json.dumps(found, indent=1, ensure_ascii=False) + "\n"}


def _measure(metric: Metric) -> dict[str, float]:
    factor = NANOSECONDS if metric.unit == "s" else 1.0
    known = {"value": metric.value, "lower_value": metric.low, "upper_value": metric.high}
    return {key: value * factor for key, value in known.items() if value is not None}
