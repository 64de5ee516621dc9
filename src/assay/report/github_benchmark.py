"""What github-action-benchmark reads: a file for figures where more is better, one for those where less is.

The action takes one direction a file: `tool: customBiggerIsBetter` and `tool: customSmallerIsBetter`. The format is
the interface `BenchmarkResult` of benchmark-action/github-action-benchmark, `src/extract.ts`.
"""

from __future__ import annotations

import json

from assay.errors import counted
from assay.matrix import Matrix
from assay.report import units
from assay.report.names import names
from assay.schema import Metric, Status

FILES = {"higher": "github-benchmark-bigger.json", "lower": "github-benchmark-smaller.json"}
"""By `Metric.better`; what is neither has no place in a chart of better and worse."""


def files(matrix: Matrix) -> dict[str, str]:
    """Both files; figures of REAL cells only, or a mock would be charted as a fast backend."""
    found: dict[str, list[dict[str, object]]] = {name: [] for name in FILES.values()}
    for cell, name in zip(matrix.cells, names(matrix.cells, device=True), strict=True):
        if cell.status is Status.REAL:
            for metric_name, metric in cell.metrics.items():
                if metric.better in FILES:
                    found[FILES[metric.better]].append(_entry(f"{name}: {metric_name}", metric))
    return {name: json.dumps(entries, indent=1, ensure_ascii=False) + "\n" for name, entries in found.items()}


def _entry(name: str, metric: Metric) -> dict[str, object]:
    factor, unit = units.shared_unit(metric.unit)
    entry: dict[str, object] = {"name": name, "value": metric.value / factor, "unit": unit}
    if metric.low is not None and metric.high is not None:
        entry["range"] = f"± {units.number(max(metric.high - metric.value, metric.value - metric.low) / factor)}"
    count = counted(metric.samples, "sample")
    entry["extra"] = count if metric.stable else f"{count}, not known to within 5 %"
    return entry
