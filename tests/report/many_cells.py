"""Cells by the thousand, each as much to say as a measured one, and all of them different.

As a script: how long a page of ten thousand takes to open and to answer, in Chromium on this machine.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from pathlib import Path

from assay import families
from assay.compare import Side
from assay.evidence import LAYERS
from assay.evidence.agreement import DECODING
from assay.matrix import Matrix, MatrixCell
from assay.report import page
from assay.schema import Cell, Check, Evidence, Layer, Metric, Phase, Swept, Workload
from tests import strategies as make

SAMPLES = {"preprocessing_time": 10, "time_to_first_token": 6}
"""As few as are taken of these."""
MEMORY = (
    "peak_memory", "load_peak_memory", "compile_peak_memory", "inference_peak_memory", "unique_memory",
    "proportional_memory", "mapped_weights",
)  # fmt: skip
SHARES = ("model_flops_utilization", "model_bandwidth_utilization")
BATCHES = ("throughput_batch", "knee_batch")
BACKENDS = ("cpu", "cuda", "openvino", "onnxruntime")
GENERATING = ("llama", "t5", "whisper", "language-model")
PHASES = {
    "builder": ("checkpoint", "export", "export twin"), "runner": ("load", "compile", "first inference", "challenges",
    "measure", "decoding", "measure decoding", "trace"), "preprocessor": ("preprocessing",),
    "judge": ("reference", "evidence"),
}  # fmt: skip


ERRORS = frozenset({"error", "permuted", "padding", "reset", "twin_error", "sampled_error", "traced_error"})
FIGURES = {
    "margin": "the best trivial answer", "tensors": "the share of parameters", "elsewhere": "the work on the device",
    "covered": "the parent's clock", "cpu_covered": "processor time", "busy": "the time of the calls",
    "repeated": "a call with an input that came before", "grows": "the time of a larger batch",
    "on_host": "a call, beside reading its outputs,", "peak": "what the device could reach",
    "modified": "the number of used files, with all of their packages and versions,",
}  # fmt: skip
"""Checks whose sentences have numbers of their own; those of `follows_inputs` and its like are all cosines of 1."""


def many(count: int) -> Matrix:
    """So many cells: checkpoints of all families, each on four backends of one machine."""
    rng = random.Random(0)
    names = families.names()
    rows = [(names[row % len(names)], f"model-{row}") for row in range(count // len(BACKENDS))]
    cells = [rich(rng, family, backend, model) for family, model in rows for backend in BACKENDS]
    report = make.report(*cells)
    session = {key: getattr(report, key) for key in ("id", "started_at", "machine", "environment")}
    return Matrix(cells=tuple(MatrixCell.model_validate({**dict(cell), "session": session}) for cell in cells))


def later(matrix: Matrix, share: float = 0.05) -> Matrix:
    """The same cells measured again, each figure off by 2 %.

    The samples of this share of cells are thirty times as long, which one run a side finds among 40,000 figures.
    """
    rng = random.Random(1)
    return Matrix(cells=tuple(_later(rng, cell, 30 if rng.random() < share else 1) for cell in matrix.cells))


def _later(rng: random.Random, cell: MatrixCell, factor: float) -> MatrixCell:
    noise = {name: rng.lognormvariate(0, 0.02) for name in cell.metrics}
    metrics = {name: each.model_copy(update={"value": each.value * noise[name]}) for name, each in cell.metrics.items()}
    samples = {name: tuple(factor * noise[name] * each for each in values) for name, values in cell.samples.items()}
    return cell.model_copy(update={"metrics": metrics, "samples": samples})


def rich(rng: random.Random, family: str, backend: str, model: str) -> Cell:
    """A cell with everything that a run records."""
    generates = family in GENERATING
    series = ("latency", "preprocessing_time", *(("time_to_first_token", "time_per_output_token") if generates else ()))
    single = (
        "load_time", "compile_time", "export_time", "first_inference_time", "harness_time", *MEMORY, "operations",
        *(("bytes_per_step",) if generates else ()),
    )  # fmt: skip
    rates = ("sentences_per_second", *(("decode_tokens_per_second", "prefill_tokens_per_second") if generates else ()))
    middle = {name: rng.lognormvariate(-6, 1) for name in series}
    metrics = {name: Metric(value=rng.lognormvariate(0, 2), unit="s") for name in single[:5]}
    metrics |= {name: Metric(value=rng.randrange(2**26, 2**29), unit="B") for name in single[5:]}
    metrics |= {name: _metric(rng, value, "s", "lower") for name, value in middle.items()}
    metrics |= {name: _metric(rng, rng.lognormvariate(6, 1), "tokens/s", "higher") for name in rates}
    metrics |= {name: _metric(rng, rng.lognormvariate(4, 1), "% of peak", "higher") for name in SHARES[: 1 + generates]}
    metrics |= {name: Metric(value=2 ** rng.randrange(8), unit="rows", better="neither") for name in BATCHES}
    metrics["throughput"] = _metric(rng, rng.lognormvariate(6, 1), "sentences/s", "higher")
    phases = [
        Phase(role=role, name=name, seconds=rng.lognormvariate(-3, 2))
        for role, names in PHASES.items() for name in names if generates or "decoding" not in name
    ]  # fmt: skip
    return make.cell(
        family, backend, size="own", checkpoint=make.checkpoint(model, "path"), metrics=metrics, phases=tuple(phases),
        evidence=tuple(_evidence(rng, layer, generates) for layer in Layer), seconds=rng.uniform(2, 20),
        seeds={"challenge": f"{rng.getrandbits(128):032x}"},
        swept={name: _swept(rng, name) for name in ("batch", "length", *(("decoding",) if generates else ()))},
        samples={name: tuple(value * rng.lognormvariate(0, 0.1) for _ in range(SAMPLES.get(name, 30)))
                 for name, value in middle.items()},
    )  # fmt: skip


def _swept(rng: random.Random, name: str) -> tuple[Swept, ...]:
    """Times that grow less than what they are of."""
    time, points = 1e-3, []
    for step in range(1, rng.randrange(4, 8)):
        time *= rng.uniform(1.1, 2)
        size = {"length": 16 * 2**step} if name == "length" else {"batch": 2**step}
        points.append(Swept(workload=Workload(name="batch-1", **size), time=_metric(rng, time, "s", "lower")))
    return tuple(points)


def _metric(rng: random.Random, value: float, unit: str, better: str) -> Metric:
    low, high = value * rng.uniform(0.9, 1), value * rng.uniform(1, 1.1)
    return Metric.model_validate(
        {"value": value, "unit": unit, "low": low, "high": high, "samples": 30, "better": better}
    )


def _evidence(rng: random.Random, layer: Layer, generates: bool) -> Evidence:
    names = [name for name in LAYERS[layer] if generates or name not in DECODING]
    return Evidence(layer=layer, checks=tuple(_check(rng, name) for name in names))


def _check(rng: random.Random, name: str) -> Check:
    """As measured cells have it: an error with its place, a figure with its sentence, or nothing found."""
    value, bound = rng.lognormvariate(-14, 0.5), rng.lognormvariate(-11.5, 0.3)
    if name in ERRORS:
        text = (
            f"relative error {value:.2g}, bound {bound:.2g}, 2 noise floors: row of logits in call 'longer' "
            f"(number {rng.randrange(150)})"
        )
        return Check(name=name, value=value, bound=bound, text=text)
    if name in FIGURES:
        large = 1 / value
        text = f"{FIGURES[name]} is {large:.3g} times as much as {rng.randrange(400)} would have been"
        return Check(name=name, value=large, bound=1, sense="at_least", text=text)
    return Check(name=name, value=0, bound=0, text=f"nothing of what {name} looks for was found in this process")


def _time(count: int) -> None:
    base = many(count)
    matrix = later(base)
    for baseline in (None, page.Baseline("base.json", Side(base, None))):
        started = time.perf_counter()
        html = page.render(matrix, baseline)
        took, size = time.perf_counter() - started, len(html.encode()) / 1e6
        print(f"{count} cells{' with a baseline' if baseline else ''}: written in {took:.1f} s, {size:.2f} MB")
        _open(html)


def _open(html: str) -> None:
    from playwright.sync_api import sync_playwright

    from tests.report.conftest import CHROMIUM

    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        path = Path(folder, "index.html")
        path.write_text(html, encoding="utf-8")
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for _ in range(5):
            tab = browser.new_page()
            tab.goto(path.as_uri())
            tab.wait_for_selector("html[data-complete]", state="attached")
            marks = tab.evaluate("performance.getEntries().map((each) => [each.name, each.startTime])")
            print(", ".join(f"{name} {dict(marks)[name]:.0f} ms"
                            for name in ("first-contentful-paint", "interactive", "complete")))  # fmt: skip
            tab.close()
        browser.close()


if __name__ == "__main__":
    _time(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000)
