"""One cell in words."""

from __future__ import annotations

import io
import json
import shlex
from pathlib import Path

import pytest
from rich.cells import cell_len

from assay.cli import main
from assay.errors import UsageError
from assay.evidence import LAYERS
from assay.matrix import Matrix, MatrixCell
from assay.report.explain import again, find, print_cells
from assay.schema import Cell, Layer, Metric, Precision, Throttling
from assay.status import REQUIRED
from tests import strategies as make


def explained(cell: Cell, width: int = 200) -> str:
    """What is said of a cell, without the padding at the ends of lines."""
    stream = io.StringIO()
    matrix = make.matrix(make.report(cell))
    print_cells(find(matrix, cell.family, cell.backend), stream, width=width)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def shown(cell: Cell) -> MatrixCell:
    """The cell as a matrix has it."""
    return find(make.matrix(make.report(cell)), cell.family, cell.backend)[0]


def test_a_real_cell_shows_every_number_with_its_bound() -> None:
    text = explained(make.cell(seeds={"challenge": "0123abcd"}, notes=("no tokenizer; all inputs are synthetic",)))
    lines = text.splitlines()
    assert lines[0] == "BERT on cpu: ✔ REAL"
    for layer, checks in LAYERS.items():
        needed = "" if layer in REQUIRED else "; REAL does not need it, as long as it has not failed"
        assert f"✔ {layer} passed{needed}" in lines
        for name in checks:
            assert f"  ✔ {name} 1.00e-07, at most 1.00e-06: {name} was looked at" in lines
    for part in (make.checkpoint("bert-tiny").sha256, "seed 0123abcd", "session s1 on box", "torch 2.13.0+cpu",
                 "no tokenizer; all inputs are synthetic"):  # fmt: skip
        assert part in text
    samples = "latency: median 1.90 ms, MAD 50.0 µs, of 3 samples; only 3 samples"
    assert "What was sampled" in lines and any(samples in line for line in lines)
    assert lines[-3].startswith("REAL: agreement, weights, placement and timing passed.")
    assert lines[-2].endswith(" anew: nox -s cpu -- --family bert")
    assert lines[-1].endswith(" inputs: nox -s cpu -- --family bert --replay reports/sessions/cpu-s1.json")


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        (
            {"stolen": 0.02, "quota": 0.0},
            "1.0% was taken by the host of the virtual machine, 0.0% was stopped by the quota of the control group",
        ),
        ({}, "nothing is told of what kept the processor away"),
    ],
)
def test_what_kept_the_processor_away_is_told_beside_the_samples(kept: dict[str, float], said: str) -> None:
    text = explained(make.cell(throttling=Throttling(seconds=2.0, **kept)))
    (line,) = [line for line in text.splitlines() if line.startswith(f"  meanwhile, 2.00 s: {said}")]
    assert line.endswith("; not told: heat") is bool(kept)
    assert "meanwhile" not in explained(make.cell())


def test_a_failed_check_says_what_follows_and_the_gravest_decides() -> None:
    failed = {(Layer.AGREEMENT, "error"): False, (Layer.WEIGHTS, "follows_weights"): False}
    lines = explained(make.cell(evidence=make.evidence(failed))).splitlines()
    assert lines[0] == "BERT on cpu: ◌ MOCK"
    assert "✘ agreement failed" in lines
    assert "  ✘ error 2.00, at most 1.00e-06: error was looked at → INACCURATE" in lines
    assert "  ✘ follows_weights 2.00, at most 1.00e-06: follows_weights was looked at → MOCK" in lines
    assert lines[-2].startswith("MOCK: of what failed, the gravest decides (MOCK, INACCURATE, FALLBACK, UNPROVEN).")


def test_what_could_not_be_judged_is_told_with_its_reason() -> None:
    lines = explained(make.cell(evidence=make.evidence({(Layer.TIMING, "covered"): None}))).splitlines()
    assert lines[0] == "BERT on cpu: ? UNPROVEN"
    assert "? timing not judged" in lines
    assert "  ? covered: covered was looked at" in lines
    assert lines[-2].startswith("UNPROVEN: timing not judged: covered was looked at.")


def test_a_failure_shows_where_how_and_the_end_of_the_log() -> None:
    lines = explained(make.failed()).splitlines()
    assert lines[0] == "BERT on cpu: ✘ FAILED"
    at = lines.index("The builder ended in its phase 'build':")
    assert lines[at + 1 : at + 5] == ["  killed by SIGSEGV", "The end of its log:", "  one", "  two"]


def test_a_diagnosis_shows_its_stages_and_the_first_layer() -> None:
    failed = make.evidence({(Layer.AGREEMENT, "error"): False})
    lines = explained(make.cell(evidence=failed, diagnosis=make.diagnosis())).splitlines()
    at = lines.index("Which stage is guilty: call 'padded', stage by stage")
    assert lines[at + 1 : at + 6] == [
        "  ✔ torch 1.00e-07, at most 1.00e-06: torch was looked at",
        "  ? exported program: not examined: it did not run",
        "  ✘ ONNX 2.00, at most 1.00e-06: ONNX was looked at",
        "The first layer whose output is beyond its bound there, in the order of the network:",
        "  ✘ encoder.layer.1 2.00, at most 1.00e-06: encoder.layer.1 was looked at",
    ]
    blank = make.diagnosis().model_copy(update={"layer": None, "not_examined": "killed by SIGKILL"})
    assert "  Not examined: killed by SIGKILL" in explained(make.cell(evidence=failed, diagnosis=blank)).splitlines()


def test_what_grew_is_told_with_its_sizes() -> None:
    rate = Metric(value=913.0, unit="sentences/s", better="higher")
    text = explained(make.cell(swept=make.swept(), metrics={**make.cell().metrics, "throughput": rate}))
    assert "throughput by batch size, sentences/s: 1: 526, 2: 877, 4: 915" in text
    assert "latency by length: 16: 1.90 ms, 32: 3.80 ms" in text


def test_absent_hardware_and_cells_that_nobody_ran() -> None:
    lines = explained(make.unavailable()).splitlines()
    assert lines[0] == "BERT on cuda: ∅ UNAVAILABLE"
    assert "  Looked for: libcuda.so.1" in lines
    stream = io.StringIO()
    print_cells(find(make.matrix(make.report(make.cell())), "t5", "openvino"), stream, width=200)
    assert stream.getvalue().splitlines()[0] == "T5 on openvino: · PENDING"


def test_what_a_model_wrote_is_shown_with_its_control_characters_spelt_out() -> None:
    assert "what it wrote for one of the inputs: 'the\\x1b[31m dog'" in explained(
        make.cell(transcript="the\x1b[31m dog")
    )


def test_the_command_runs_the_same_cell() -> None:
    assert again(shown(make.cell())) == "nox -s cpu -- --family bert"
    assert again(shown(make.cell(size="base"))) == "nox -s cpu -- --family bert --size base"
    hub = make.checkpoint("org/name", "hub").model_copy(update={"revision": "abc123"})
    assert again(shown(make.cell(size="own", checkpoint=hub))) == "nox -s cpu -- --model bert=org/name@abc123"
    odd = make.checkpoint("my model; rm -rf ~", "path")
    assert shlex.split(again(shown(make.cell(size="own", checkpoint=odd))))[-1] == "bert=my model; rm -rf ~"
    assert again(shown(make.cell(backend="theirs"))) == "assay run --backend theirs --family bert"
    second = make.report(make.cell(backend="cuda")).model_copy(update={"asked_device": "cuda:1"})
    (cell,) = find(make.matrix(second), "bert", "cuda")
    assert again(cell) == "nox -s cuda -- --family bert --device cuda:1"


def test_several_cells_of_a_place_stand_one_after_the_other() -> None:
    matrix = make.matrix(make.report(make.cell(), make.cell("t5")), make.report(make.cell(size="base"), session="s2"))
    stream = io.StringIO()
    print_cells(find(matrix, "bert", "cpu"), stream, width=80)
    assert stream.getvalue().count("BERT on cpu: ✔ REAL") == 2


def test_one_precision_is_explained_alone() -> None:
    both = (Precision.F32, Precision.INT8)
    matrix = make.matrix(make.report(*(make.cell(precision=precision) for precision in both), precisions=both))
    assert [cell.precision for cell in find(matrix, "bert", "cpu")] == ["f32", "int8"]
    assert [cell.precision for cell in find(matrix, "bert", "cpu", "int8")] == ["int8"]
    with pytest.raises(UsageError, match="unknown precision of bert on cpu 'int4'; did you mean int8"):
        find(matrix, "bert", "cpu", "int4")


@pytest.mark.parametrize("width", [60, 80])
def test_it_fits_and_what_a_report_says_cannot_drive_the_terminal(width: int) -> None:
    nasty = make.evidence()[:1] + make.evidence()[1:]
    text = "\x1b[31mred\x1b[0m [bold]x[/bold] " + "long " * 60
    first = nasty[0].model_copy(update={"checks": (make.check("error", text=text), *nasty[0].checks[1:])})
    found = explained(make.cell(evidence=(first, *nasty[1:]), notes=(text,)), width)
    assert "\x1b" not in found and "[bold]x[/bold]" in found
    assert all(cell_len(line) <= width for line in found.splitlines())


@pytest.fixture
def matrix_file(tmp_path: Path) -> Path:
    """A matrix of all statuses."""
    path = tmp_path / "matrix.json"
    path.write_text(make.full_matrix().model_dump_json(), encoding="utf-8")
    return path


def test_the_command_line_explains_from_a_file(matrix_file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "bert", "openvino", "--matrix", str(matrix_file), "--precision", "f32"]) == 0
    assert capsys.readouterr().out.startswith("BERT on openvino: ≉ INACCURATE")
    assert main(["explain", "bert", "openvino", "--matrix", str(matrix_file), "--json"]) == 0
    assert [cell["status"] for cell in json.loads(capsys.readouterr().out)] == ["INACCURATE"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("bret", "cpu"), "unknown family 'bret'; did you mean bert?"),
        (("bert", "openvin"), "unknown backend 'openvin'; did you mean openvino?"),
        (("bert",), "BACKEND"),
    ],
)
def test_names_that_are_not_there_get_one_line(
    words: tuple[str, ...], message: str, matrix_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *words, "--matrix", str(matrix_file)]) == 2
    found = capsys.readouterr().err
    assert message in found and len(found.splitlines()) == 1


def test_a_matrix_without_that_pair_says_so() -> None:
    whole = make.full_matrix()
    part = Matrix(cells=tuple(cell for cell in whole.cells if (cell.family, cell.backend) != ("bert", "cpu")))
    with pytest.raises(UsageError, match="no cell of bert on cpu"):
        find(part, "bert", "cpu")
