"""What trackers of benchmarks read: figures by their published schemas, in the right direction and unit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from assay.matrix import Matrix
from assay.report import bencher, github_benchmark, pytorch_benchmark
from assay.schema import Metric, Status
from tests import strategies as make

MODULES = {
    "github-benchmark": github_benchmark,
    "bencher": bencher,
    "pytorch-benchmark": pytorch_benchmark,
}
BERT = "bert on cpu, tiny, f32, Some Processor"


def rendered(format_name: str, matrix: Matrix) -> dict[str, Any]:
    """What its files hold, by name."""
    return {name: json.loads(text) for name, text in MODULES[format_name].files(matrix).items()}


def validator(format_name: str) -> jsonschema.protocols.Validator:
    schema = json.loads((Path(__file__).parent / "schemas" / f"{format_name}.json").read_text(encoding="utf-8"))
    found = jsonschema.validators.validator_for(schema)
    found.check_schema(schema)
    return found(schema)


def one(**metrics: Metric) -> Matrix:
    return make.matrix(make.report(make.cell(metrics=metrics)))


@pytest.mark.parametrize("format_name", MODULES)
def test_it_is_valid_by_its_schema_and_not_empty(format_name: str) -> None:
    for data in rendered(format_name, make.full_matrix()).values():
        validator(format_name).validate(data)
        assert data


@pytest.mark.parametrize(
    ("format_name", "wrong"),
    [
        ("github-benchmark", [{"name": "latency", "value": "1.9", "unit": "ms"}]),
        ("github-benchmark", [{"name": "latency", "value": 1.9}]),
        ("bencher", {"bert": {"latency": {"lower_value": 1.9}}}),
        ("bencher", {"bert": {"x" * 65: {"value": 1.9}}}),
        ("pytorch-benchmark", [{"benchmark": {"name": "assay"}, "model": {"name": "bert"}, "metric": {"name": "x"}}]),
        ("pytorch-benchmark", [{"benchmark": {"name": "assay", "extra_info": {"threads": 2}}, "model": {"name": "bert"},
                                "metric": {"name": "x", "benchmark_values": [1.0]}}]),
    ],
)  # fmt: skip
def test_the_schema_catches_what_is_wrong(format_name: str, wrong: Any) -> None:
    with pytest.raises(jsonschema.ValidationError):
        validator(format_name).validate(wrong)


@pytest.mark.parametrize("format_name", MODULES)
def test_only_figures_of_real_cells_are_handed_on(format_name: str) -> None:
    """All four columns have figures in this matrix; a mock's would make a fast backend of it."""
    matrix = make.full_matrix()
    assert any(cell.metrics for cell in matrix.cells if cell.status is not Status.REAL)
    text = json.dumps(list(rendered(format_name, matrix).values()))
    assert "cpu" in text and "openvino" not in text


def test_github_gets_a_file_a_direction() -> None:
    found = rendered("github-benchmark", one(
        latency=Metric(value=2e-3, unit="s", low=1.9e-3, high=2.3e-3, samples=30, stable=False),
        rate=Metric(value=500, unit="tokens/s", better="higher"),
        peak_memory=Metric(value=3 * 2**20, unit="B"),
        dimension=Metric(value=64, unit="dimensions", better="neither"),
    ))  # fmt: skip
    assert found == {
        "github-benchmark-bigger.json": [
            {"name": f"{BERT}: rate", "value": 500, "unit": "tokens/s", "extra": "1 sample"},
        ],
        "github-benchmark-smaller.json": [
            {"name": f"{BERT}: latency", "value": 2.0, "unit": "ms", "range": "± 0.300",
             "extra": "30 samples, not known to within 5 %"},
            {"name": f"{BERT}: peak_memory", "value": 3.0, "unit": "MiB", "extra": "1 sample"},
        ],
    }  # fmt: skip


def test_bencher_gets_nanoseconds_and_slugs() -> None:
    found = rendered("bencher", one(
        first_inference_time=Metric(value=2e-3, unit="s", low=1.9e-3, high=2.3e-3, samples=30),
        peak_memory=Metric(value=3 * 2**20, unit="B"),
    ))  # fmt: skip
    assert found["bencher.json"] == {
        BERT: {
            "first-inference-time": {"value": 2e6, "lower_value": 1.9e6, "upper_value": pytest.approx(2.3e6)},
            "peak-memory": {"value": 3145728},
        }
    }


def test_pytorch_gets_a_record_a_metric_with_model_machine_and_versions() -> None:
    records = rendered("pytorch-benchmark", one(latency=Metric(value=2e-3, unit="s", samples=30)))
    (record,) = records["pytorch-benchmark.json"]
    assert record["benchmark"] | {"extra_info": {}} == {
        "name": "assay", "mode": "inference", "dtype": "float32", "extra_info": {},
    }  # fmt: skip
    assert (record["model"]["name"], record["model"]["backend"]) == ("bert-tiny", "cpu")
    assert record["metric"]["benchmark_values"] == [2e-3]
    assert record["metric"]["extra_info"]["unit"] == "s"
    assert record["dependencies"]["torch"]["version"] == "2.13.0+cpu"
    assert (record["runners"][0]["cpu_info"], record["runners"][0]["avail_mem_in_gb"]) == ("Some Processor", 8)
    assert list(record["inputs"]) == ["measured", "padded", "decode"]
