"""The PyTorch OSS benchmark schema, version 3.

A list of records, one for each metric, as the wiki of pytorch/pytorch asks ("PyTorch OSS benchmark infra") and the
table behind it types them (pytorch/test-infra, `clickhouse_db_schema/oss_ci_benchmark_v3/schema.sql`): maps named
`extra_info` hold strings. What the upload adds (repository, commit, workflow) is left to it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from assay import __version__
from assay.matrix import Matrix, MatrixCell, SessionRef
from assay.report import grid
from assay.schema import Metric, Precision, Status

DTYPES: Mapping[Precision, str] = {
    Precision.F32: "float32", Precision.BF16: "bfloat16", Precision.F16: "float16", Precision.INT8: "int8",
}  # fmt: skip
GIB = 2**30


def files(matrix: Matrix) -> dict[str, str]:
    """`pytorch-benchmark.json`; REAL cells only: a figure of anything else is not that of the backend it names."""
    records = [
        _record(cell, cell.session, name, metric)
        for cell in matrix.cells
        if cell.status is Status.REAL and cell.session
        for name, metric in cell.metrics.items()
    ]
    return {"pytorch-benchmark.json": json.dumps(records, indent=1, ensure_ascii=False) + "\n"}


def _record(cell: MatrixCell, session: SessionRef, name: str, metric: Metric) -> dict[str, object]:
    machine, software = session.machine, session.environment
    facts = {
        "unit": metric.unit, "low": metric.low, "high": metric.high, "samples": metric.samples,
        "stable": str(metric.stable).lower(), "better": metric.better,
    }  # fmt: skip
    return {
        "benchmark": {
            "name": "assay", "mode": "inference", "dtype": DTYPES[cell.precision],
            "extra_info": _strings({"device": cell.device, "status": cell.status, "session": session.id,
                                    "threads": software.threads, "assay": software.assay or __version__}),
        },
        "model": {
            "name": f"{cell.family}-{cell.size}" if cell.checkpoint is None else cell.checkpoint.name,
            "type": grid.about(cell.family)[1], "backend": cell.backend, "origins": ["transformers"],
            "extra_info": _strings({"family": cell.family, "size": cell.size,
                                    "sha256": cell.checkpoint and cell.checkpoint.sha256,
                                    "revision": cell.checkpoint and cell.checkpoint.revision}),
        },
        "inputs": {
            workload.name: {"dtype": "", "extra_info": _strings(workload.model_dump(exclude={"name"}))}
            for workload in cell.workloads
        },
        "dependencies": {
            package: {"repo": "", "branch": "", "sha": "", "version": version, "extra_info": {}}
            for package, version in {"python": software.python, **software.packages}.items()
        },
        "runners": [{
            "name": machine.name, "type": machine.system, "cpu_info": machine.processor, "cpu_count": machine.cores,
            "avail_mem_in_gb": machine.memory // GIB, "gpu_info": ", ".join(machine.devices),
            "gpu_count": len(machine.devices), "extra_info": {},
        }],
        "metric": {"name": name, "benchmark_values": [metric.value], "extra_info": _strings(facts)},
    }  # fmt: skip


def _strings(values: Mapping[str, object]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items() if value is not None}
