"""The command line as users meet it: real processes, exit codes, one line for a mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from assay import cli
from assay.matrix import Matrix
from assay.progress import PlainProgress, QuietProgress, choose, summary
from assay.schema import Cell, Layer, Status
from assay.session_report import SessionReport
from tests import strategies as make

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`python -m assay ARGUMENTS` in an empty folder."""

    def run(*arguments: str | Path, python: tuple[str, ...] = (), **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, *python, "-m", "assay", *map(str, arguments)],
            cwd=tmp_path, capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL,
            env={"COLUMNS": "80"} | os.environ | env,
        )  # fmt: skip

    return run


def write(folder: Path, report: SessionReport) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{report.backend}-{report.id}.json"
    path.write_text(report.model_dump_json(), encoding="utf-8")
    return path


@pytest.fixture
def sessions(tmp_path: Path) -> Path:
    """Two readable reports where `assay merge` looks for them."""
    folder = tmp_path / "reports" / "sessions"
    write(folder, make.report(make.cell(), make.failed("clip")))
    write(folder, make.report(make.unavailable(), session="s2"))
    return folder


# Help


@pytest.mark.parametrize("arguments", [("--help",), ("run", "--help"), ("--version",)])
def test_help_imports_nothing_heavy(run: Run, arguments: tuple[str, ...]) -> None:
    done = run(*arguments, python=("-X", "importtime"))
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    heavy = {"torch", "transformers", "numpy", "pydantic", "rich", "openvino", "onnxruntime", "psutil"}
    assert not heavy & {name.partition(".")[0] for name in imported}


def test_help_has_examples_and_exit_codes(run: Run) -> None:
    text = run("--help").stdout
    for word in (
        "run",
        "merge",
        "expect",
        "show",
        "explain",
        "doctor",
        "cache",
        "schema",
        "examples:",
        "exit codes:",
        "130",
    ):
        assert word in text


def test_no_command_imports_a_runtime_to_answer(run: Run, sessions: Path) -> None:
    done = run("merge", python=("-X", "importtime"))
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "pydantic" in imported
    assert not {"torch", "transformers", "openvino", "onnxruntime"} & imported


# Mistakes


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "which command? one of run, merge, expect, compare, export, attest, verify, show, explain, doctor, cache"),
        (("rum",), "unknown command 'rum'; did you mean run?"),
        (("run",), "which backend? --backend takes one of cpu, cuda, openvino, onnxruntime"),
        (("run", "--bakend", "cpu"), "unknown option '--bakend'; did you mean --backend?"),
        (("run", "cpu"), "which backend? --backend takes one of cpu"),
        (("run", "--backend", "cpu", "nowhere"), "nowhere: no such folder"),
        (("merge", "--output"), "argument --output: expected one argument"),
        (("run", "--backend", "openvin"), "unknown backend 'openvin'; did you mean openvino?"),
        (("run", "--backend", "cpu", "--family", "bart"), "unknown family 'bart'; did you mean bert"),
        (("run", "--backend", "cpu", "--family", ","), "--family names no family"),
        (("run", "--backend", "cpu", "--timeout", "soon"), "argument --timeout: invalid float value: 'soon'"),
        (("run", "--backend", "cpu", "--timeout", "-1"), "--timeout takes a positive number"),
        (("run", "--backend", "cpu", "--size", "tinny"), "unknown size 'tinny'; did you mean tiny?"),
        (("run", "--backend", "cpu", "--precision", "f23"), "unknown precision 'f23'; did you mean f32"),
        (("run", "--backend", "cpu", "--model", "bert"), "--model takes FAMILY=SOURCE, not 'bert'"),
        (("run", "--backend", "cpu", "--model", "bert=a", "--model", "bert=b"), "--model names bert twice"),
        (("run", "--backend", "cpu", "--model", "bert=nowhere"), "nowhere"),
        (("run", "--backend", "cpu", "--device", "cuda:1"), "--device takes cpu ("),
        (("run", "--backend", "cpu", "--device", "cpu:1"), " here, not 'cpu:1'"),
        (("run", "--backend", "cpu", "--expect", "none.json"), "none.json: no such file; `assay expect --output none"),
        (("merge", "--expect", "none.json", "."), "none.json: no such file"),
        (("expect",), "reports/sessions: no such file or folder; `assay run --backend cpu` writes"),
        (("expect", "."), "no cell that was run in .; `assay run --backend cpu` runs some"),
        (("merge",), "reports/sessions: no such file or folder; `assay run --backend cpu` writes"),
        (("merge", "--json=1"), "--json"),
        (("show",), "reports/matrix.json: no such file; `assay merge` writes it"),
        (("schema", "sesion"), "unknown record 'sesion'; did you mean session?"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(run: Run, arguments: tuple[str, ...], words: str) -> None:
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("assay: error: ")
    assert words in line


def test_a_folder_that_cannot_be_made_is_a_mistake(run: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = run("run", "--backend", "cpu", "--reports", "file")
    assert done.returncode == 2
    assert done.stderr.startswith("assay: error: file/sessions: cannot be made")


# merge and show


def test_merge_writes_and_prints(run: Run, sessions: Path, tmp_path: Path) -> None:
    done = run("merge")
    assert (done.returncode, done.stderr) == (0, "")
    assert "✔ REAL 1.90 ms" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    matrix = Matrix.model_validate_json((tmp_path / "reports" / "matrix.json").read_text())
    assert len(matrix.cells) == 40
    assert "# Status matrix" in (tmp_path / "reports" / "STATUS.md").read_text()
    assert "<h1>Status matrix</h1>" in (tmp_path / "reports" / "index.html").read_text()
    before = (tmp_path / "reports" / "matrix.json").read_bytes()
    run("merge", sessions, *sessions.iterdir())
    assert (tmp_path / "reports" / "matrix.json").read_bytes() == before
    assert run("show").stdout == done.stdout


def test_merge_into_another_folder_as_json(run: Run, sessions: Path, tmp_path: Path) -> None:
    done = run("merge", sessions, "--output", "else/where", "--json")
    assert done.returncode == 0
    assert done.stdout == (tmp_path / "else" / "where" / "matrix.json").read_text()
    assert run("show", "else/where/matrix.json", "--json").stdout == done.stdout


def test_merge_names_what_it_skips_and_says_so_in_its_exit_code(run: Run, sessions: Path, tmp_path: Path) -> None:
    (sessions / "broken.json").write_text("{")
    done = run("merge")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("assay: skipped reports/sessions/broken.json: is not JSON, or was cut off")
    assert "✔ REAL" in done.stdout
    assert (tmp_path / "reports" / "matrix.json").is_file()


def test_a_folder_without_a_report_that_can_be_read_is_an_error(run: Run, tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"name": "foreign"}')
    done = run("merge", ".")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "assay: skipped package.json: is not a session report of assay: it has no schema_version",
        "assay: error: no session report that can be read in .; `assay run --backend cpu` writes one",
    ]


def test_no_cells_are_an_error(run: Run, tmp_path: Path) -> None:
    write(tmp_path, make.report())
    done = run("merge", tmp_path)
    assert done.returncode == 2
    assert "no cell in any session report" in done.stderr
    assert not (tmp_path / "reports").exists()


def test_merge_holds_the_whole_matrix_against_what_is_known(run: Run, sessions: Path) -> None:
    assert run("expect", "--output", "ci/expected.json").stderr == "ci/expected.json: 1 known failure\n"
    done = run("merge", "--expect", "ci/expected.json")
    assert (done.returncode, done.stderr) == (0, "")  # 38 cells are PENDING: nobody ran them
    write(sessions, make.report(make.failed("t5"), make.cell("clip"), session="s3", start=9))
    done = run("merge", "--expect", "ci/expected.json")
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "assay: unexpected: clip on cpu (tiny, f32): expected FAILED, found REAL, a known failure that has gone",
        "assay: unexpected: t5 on cpu (tiny, f32): expected REAL, found FAILED: builder, build: killed by SIGSEGV",
    ]
    assert "✘ FAILED" in done.stdout
    assert run("merge").returncode == 0


def test_show_concludes_anew(run: Run, tmp_path: Path) -> None:
    mock = make.cell(evidence=make.evidence({(Layer.AGREEMENT, "follows_inputs"): False}))
    run("merge", write(tmp_path, make.report(mock)))
    path = tmp_path / "reports" / "matrix.json"
    assert '"MOCK"' in path.read_text()
    path.write_text(path.read_text().replace('"MOCK"', '"REAL"'))
    assert "◌ MOCK" in run("show").stdout
    assert json.loads(run("show", "--json").stdout)["cells"][0]["status"] == "MOCK"


def test_a_terminal_without_unicode_gets_its_table(run: Run, sessions: Path) -> None:
    done = run("merge", PYTHONIOENCODING="ascii")
    assert done.returncode == 0
    assert "? REAL 1.90 ms" in done.stdout


def test_a_reader_that_goes_away_is_no_error(sessions: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "assay", "schema", "matrix"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    process.stderr.close()
    assert process.wait() == 0


# schema and doctor


@pytest.mark.parametrize(
    ("arguments", "title"),
    [
        ((), "SessionReport"),
        (("session",), "SessionReport"),
        (("matrix",), "Matrix"),
        (("expected",), "KnownFailures"),
    ],
)
def test_schema_is_a_json_schema(run: Run, arguments: tuple[str, ...], title: str) -> None:
    schema = json.loads(run("schema", *arguments).stdout)
    assert schema["title"] == title
    jsonschema.Draft202012Validator.check_schema(schema)


def test_doctor_answers_for_every_backend(run: Run) -> None:
    done = run("doctor", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = {each["backend"]: each for each in json.loads(done.stdout)}
    assert set(found) == {"cpu", "cuda", "openvino", "onnxruntime", "cpu-compile", "cuda-compile"}
    assert {"backend", "available", "ready", "reason", "looked_for", "devices", "missing"} <= set(found["cpu"])
    assert found["cpu"]["available"] is True
    text = run("doctor").stdout
    assert all(name in text for name in found)


# run, with a session that is made up


def session_of(monkeypatch: pytest.MonkeyPatch, result: SessionReport | BaseException) -> list[dict[str, Any]]:
    """Let `assay run` get this from its session; the calls are returned."""
    calls: list[dict[str, Any]] = []

    def run_session(plan: object, reports: Path, **arguments: Any) -> SessionReport:
        calls.append({"plan": plan, "reports": reports, **arguments})
        if isinstance(result, BaseException):
            raise result
        return result

    monkeypatch.setattr("assay.session.run_session", run_session)
    return calls


@pytest.mark.parametrize(
    ("cells", "arguments", "code"),
    [
        ((make.cell(),), (), 0),
        ((make.cell(), make.unavailable("clip")), (), 0),
        ((make.cell(), make.unavailable("clip")), ("--require-real",), 1),
        ((make.cell(), make.failed("clip")), (), 1),
        ((make.cell(evidence=make.evidence({(Layer.AGREEMENT, "error"): False})),), (), 1),
    ],
)  # fmt: skip
def test_the_exit_code_of_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cells: tuple[Any, ...], arguments: tuple[str, ...], code: int
) -> None:
    session_of(monkeypatch, make.report(*cells))
    assert cli.main(["run", "--backend", "cpu", "--reports", str(tmp_path), *arguments]) == code


def test_run_passes_on_what_was_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = make.report(make.cell())
    calls = session_of(monkeypatch, report)
    arguments = ["--family", "t5,bert", "--family", "clip", "--timeout", "7", "--resume", "--json"]
    assert cli.main(["run", "--backend", "cpu", "--reports", str(tmp_path), *arguments]) == 0
    (call,) = calls
    assert (call["plan"].families, call["plan"].timeout) == (("bert", "clip", "t5"), 7.0)
    assert (call["reports"], call["keep"]) == (tmp_path, set(Status))
    assert isinstance(call["progress"], QuietProgress)
    assert capsys.readouterr().out == report.model_dump_json(indent=1) + "\n"


@pytest.mark.parametrize("arguments", [("--only-failed",), ("--only-failed", "--resume")])
def test_only_failed_keeps_what_need_not_run_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...]
) -> None:
    calls = session_of(monkeypatch, make.report(make.cell()))
    assert cli.main(["run", "--backend", "cpu", "--reports", str(tmp_path), *arguments]) == 0
    assert cli.main(["run", "--backend", "cpu", "--reports", str(tmp_path)]) == 0
    assert [call["keep"] for call in calls] == [{Status.REAL, Status.UNAVAILABLE}, None]


FAILED = "bert on cpu (tiny, f32): expected REAL, found FAILED: builder, build: killed by SIGSEGV"
GONE = "bert on cpu (tiny, f32): expected FAILED, found REAL, a known failure that has gone"


@pytest.mark.parametrize(
    ("known", "found", "arguments", "code", "lines"),
    [
        (make.failed(), make.failed(), (), 0, []),
        (make.cell(), make.failed(), (), 1, [FAILED]),
        (make.failed(), make.cell(), (), 1, [GONE]),
        (make.failed(), make.unavailable(backend="cpu"), (), 0, []),
        (make.failed(), make.unavailable(backend="cpu"), ("--require-real",), 1,
         ["bert on cpu (tiny, f32): expected FAILED, found UNAVAILABLE: no NVIDIA driver"]),
        (make.failed("clip", "openvino"), make.cell(), (), 0, []),
    ],
)  # fmt: skip
def test_known_failures_and_the_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    known: Cell, found: Cell, arguments: tuple[str, ...], code: int, lines: list[str],
) -> None:  # fmt: skip
    expected = tmp_path / "expected.json"
    assert cli.main(["expect", str(write(tmp_path / "before", make.report(known))), "--output", str(expected)]) == 0
    capsys.readouterr()
    session_of(monkeypatch, make.report(found))
    reports = ("--reports", str(tmp_path / "now"))
    assert cli.main(["run", "--backend", "cpu", *reports, "--expect", str(expected), *arguments]) == code
    shown = capsys.readouterr().err.splitlines()
    assert [line for line in shown if line.startswith("assay: ")] == [f"assay: unexpected: {line}" for line in lines]


def test_an_interrupted_run_says_what_is_kept(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session_of(monkeypatch, KeyboardInterrupt())
    assert cli.main(["run", "--backend", "cpu", "--reports", str(tmp_path)]) == 130
    assert cli.main(["run", "--backend", "cpu", "--reports", str(tmp_path), "--only-failed"]) == 130
    kept = f"assay: interrupted; finished cells are kept in {tmp_path / 'sessions'}"
    assert capsys.readouterr().err.splitlines() == [
        f"{kept}, --resume goes on from there", f"{kept}, --only-failed goes on from there",
    ]  # fmt: skip


def test_an_interrupted_replay_promises_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session_of(monkeypatch, KeyboardInterrupt())
    report = write(tmp_path, make.report(make.cell(seeds={"challenge": "0d" * 16})))
    replay = ("--family", "bert", "--replay", str(report), "--reports", str(tmp_path))
    assert cli.main(["run", "--backend", "cpu", *replay]) == 130
    assert capsys.readouterr().err.splitlines() == ["assay: interrupted; nothing was compared"]


# Progress


def test_plain_progress_has_a_line_for_each_cell(capsys: pytest.CaptureFixture[str]) -> None:
    progress = choose(quiet=False)
    assert isinstance(progress, PlainProgress)
    progress.session("cpu", 2)
    progress.phase("bert", "runner", "load")
    progress.done(make.cell())
    progress.done(make.failed("clip"))
    progress.finished()
    assert capsys.readouterr().err.splitlines() == [
        "cpu: 2 cells",
        "[1/2] ✔ REAL bert on cpu, f32: 1.90 ms, error 1.0e-07 of 1.0e-06, took 3.20 s",
        "[2/2] ✘ FAILED clip on cpu, f32: builder, build: killed by SIGSEGV, took 3.20 s",
    ]


def test_the_live_line_shows_role_phase_and_time_of_what_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    progress = choose(quiet=False)
    from assay.progress import LiveProgress

    assert isinstance(progress, LiveProgress)
    lines = []
    progress.session("cpu", 2)
    bert, clip = "bert f32", "clip f32"
    for cell, role, phase in [(bert, "builder", "build"), (clip, "judge", "evidence"), (bert, "builder", "")]:
        progress.phase(cell, role, phase)
        lines.append(str(progress._line()))
    progress.done(make.cell("clip"))
    lines.append(str(progress._line()))
    progress.finished()
    progress.finished()
    assert lines == [
        "[0/2] cpu: bert f32: builder, build, 0 s",
        "[0/2] cpu: bert f32: builder, build, 0 s; clip f32: judge, evidence, 0 s",
        "[0/2] cpu: clip f32: judge, evidence, 0 s",
        "[1/2] cpu: starting",
    ]


def test_the_line_of_a_cell_without_a_number_gives_its_reason() -> None:
    cell = make.cell(evidence=make.evidence({(Layer.AGREEMENT, "error"): None}), metrics={}, seconds=None)
    assert summary(cell).plain == "? UNPROVEN bert on cpu, f32: agreement not judged: error was looked at"
