"""The command line: parse, call, print. Whatever is heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from assay.arguments import make_parser
from assay.errors import UsageError, counted, unknown

if TYPE_CHECKING:
    from assay.plan import Plan
    from assay.schema import Cell

REPLAYS = "replays"
"""Where reports of replays go, beside `sessions`: inputs that were known before prove less, and no merge reads them."""
OK, BAD, USAGE, INTERRUPTED = 0, 1, 2, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Returns:
        The exit code.
    """
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal without UTF-8 still gets its table
    try:
        code = _dispatch(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except UsageError as error:
        print(f"assay: error: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("assay: interrupted", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has gone (`assay show | head`); Python would complain once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    return code


def _dispatch(argv: list[str]) -> int:
    parser, commands = make_parser()
    if not argv:
        raise UsageError(f"which command? one of {', '.join(commands)}; see `assay --help`")
    if not argv[0].startswith("-") and argv[0] not in commands:
        raise unknown("command", argv[0], commands)
    arguments, rest = parser.parse_known_args(argv)
    if rest:
        command = commands[arguments.command]
        if rest[0].startswith("-"):
            raise unknown("option", rest[0].partition("=")[0], command.options)
        raise UsageError(f"unexpected argument {rest[0]!r}; see `{command.prog} --help`")
    if arguments.command == "run":
        return _run(arguments)
    with nothing_collected():
        return COMMANDS[arguments.command](arguments)


@contextmanager
def nothing_collected() -> Iterator[None]:
    """Python looks for no garbage: a command's records are none until it ends, and to look at many takes longest."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _planned(arguments: argparse.Namespace) -> tuple[Plan, Cell | None]:
    """What to run, and the recorded cell if it is a replay."""
    if arguments.backend is None:
        from assay import backends

        raise UsageError(f"which backend? --backend takes one of {', '.join(backends.names())}")
    families = _names(arguments.family)
    if arguments.family and not families:
        raise UsageError("--family names no family")
    models = _models(arguments.model)
    from assay import replay
    from assay.plan import make_plan

    precisions = _names(arguments.precision)
    if arguments.precision and not precisions:
        raise UsageError("--precision names no precision")
    wanted = {"families": families, "models": models, "size": arguments.size, "precisions": precisions}
    before = None
    if arguments.replay:
        named = {*families, *models}
        if len(named) != 1 or arguments.sources:
            raise UsageError("--replay takes one cell: name it by one --family")
        if len(precisions) > 1:
            raise UsageError("--replay takes one cell: name it by one --precision")
        if arguments.resume or arguments.only_failed or arguments.expect:
            raise UsageError("--replay runs what it names: --resume, --only-failed and --expect do not go with it")
        before = replay.recorded(arguments.replay, arguments.backend, named.pop(), *precisions)
        wanted |= replay.asked(before, models)
    plan = make_plan(
        backend=arguments.backend, found=arguments.sources, timeout=arguments.timeout, device=arguments.device, **wanted
    )
    return (replay.seeded(plan, before), before) if before else (plan, None)


def _run(arguments: argparse.Namespace) -> int:
    plan, before = _planned(arguments)
    from assay import cache, expect, progress
    from assay.schema import Status
    from assay.session import run_session

    known = expect.read(arguments.expect) if arguments.expect else ()
    reports = arguments.reports / REPLAYS if before else arguments.reports
    _writable(reports / "sessions")
    keep = {Status.REAL, Status.UNAVAILABLE} if arguments.only_failed else set(Status) if arguments.resume else None
    cap, started = cache.cap(), time.time()
    shown = progress.choose(quiet=arguments.json)
    try:
        with cache.held():
            report = run_session(plan, reports, progress=shown, keep=keep)
    except KeyboardInterrupt:
        shown.finished()
        again = "--only-failed" if arguments.only_failed else "--resume"
        kept = f"finished cells are kept in {reports / 'sessions'}, {again} goes on from there"
        print(f"assay: interrupted; {'nothing was compared' if before else kept}", file=sys.stderr)
        return INTERRUPTED
    except BaseException:
        shown.finished()  # or the live line would hide the traceback
        raise
    if arguments.json:
        print(report.model_dump_json(indent=1))
    else:
        print(reports / "sessions" / f"{report.backend}-{report.id}.json", file=sys.stderr)
    for line in cache.enforce(cap, started):
        print(f"assay: {line}", file=sys.stderr)
    if before:
        return _replayed(before, report.cells[0])
    surprises = expect.surprises(report.cells, known, require_real=arguments.require_real)
    if arguments.expect:
        _complain(surprises)
    return BAD if surprises else OK


def _replayed(before: Cell, after: Cell) -> int:
    from assay.replay import differences

    lines = differences(before, after)
    for line in lines or ["every verdict is the same"]:
        print(f"assay: replayed: {line}", file=sys.stderr)
    return BAD if lines else OK


def _complain(surprises: Sequence[str]) -> None:
    for line in surprises:
        print(f"assay: unexpected: {line}", file=sys.stderr)


def _models(pairs: Sequence[str]) -> dict[str, str]:
    models: dict[str, str] = {}
    for pair in pairs:
        family, separator, source = pair.partition("=")
        if not (family and separator and source):
            raise UsageError(f"--model takes FAMILY=SOURCE, not {pair!r}")
        if family in models:
            raise UsageError(f"--model names {family} twice")
        models[family] = source
    return models


def _writable(folder: Path) -> None:
    """Make the folder before hours of work, not after."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: cannot be made: {error.strerror}") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"{folder}: cannot be written to")


def _merge(arguments: argparse.Namespace) -> int:
    from assay import backends, compare, expect, export, families, report_files
    from assay import merge as merging
    from assay.files import write_atomically
    from assay.report import markdown, page, terminal

    if not any(path.exists() for path in arguments.paths):
        missing = ", ".join(map(str, arguments.paths))
        raise UsageError(f"{missing}: no such file or folder; `assay run --backend cpu` writes reports/sessions")
    known = expect.read(arguments.expect) if arguments.expect else ()
    base = arguments.baseline
    threshold = _threshold(arguments.threshold)
    baseline = page.Baseline(base.name, compare.read(base), threshold) if base else None
    reports, problems = report_files.read(arguments.paths)
    for problem in problems:
        print(f"assay: skipped {problem}", file=sys.stderr)
    if not any(report.cells for report in reports):
        what = "no cell in any session report" if reports else "no session report"
        where = ", ".join(map(str, arguments.paths))
        raise UsageError(f"{what} that can be read in {where}; `assay run --backend cpu` writes one")
    matrix = merging.merge(reports, families.names(), backends.columns())
    _writable(arguments.output)
    text = matrix.model_dump_json(indent=1)
    write_atomically(arguments.output / "matrix.json", text + "\n")
    write_atomically(arguments.output / "STATUS.md", markdown.render(matrix))
    write_atomically(arguments.output / "index.html", page.render(matrix, baseline))
    export.write("junit", matrix, arguments.output)
    if arguments.json:
        print(text)
    else:
        terminal.print_matrix(matrix, most=terminal.MOST)
    surprises = expect.surprises([cell for cell in matrix.cells if cell.session], known) if arguments.expect else ()
    _complain(surprises)
    return BAD if problems or surprises else OK


def _expect(arguments: argparse.Namespace) -> int:
    from assay import expect
    from assay.files import write_atomically

    found = expect.known_failures(expect.measured(arguments.paths))
    text = found.model_dump_json(indent=1, exclude_none=True) + "\n"
    if arguments.output is None:
        print(text, end="")
        return OK
    _writable(arguments.output.parent)
    write_atomically(arguments.output, text)
    count = len(found.known_failures)
    print(f"{arguments.output}: {counted(count, 'known failure')}", file=sys.stderr)
    return OK


def _threshold(percent: float) -> float:
    if not 0 <= percent < float("inf"):
        raise UsageError(f"--threshold takes percent, not {percent}")
    return percent / 100


def _compare(arguments: argparse.Namespace) -> int:
    from assay import compare
    from assay.report import comparison

    if arguments.json and arguments.markdown:
        raise UsageError("--json and --markdown do not go together")
    threshold = _threshold(arguments.threshold)
    base, new = compare.read(arguments.base), compare.read(arguments.new)
    found = compare.compare(base, new, threshold=threshold)
    if arguments.json:
        print(comparison.to_json(found))
    elif arguments.markdown:
        print(comparison.to_markdown(found), end="")
    else:
        comparison.print_comparison(found)
    if found.regressions:
        return BAD
    if arguments.update_baseline:
        compare.update(arguments.base, base, new)
    return OK


def _export(arguments: argparse.Namespace) -> int:
    from assay.export import export

    for path in export(arguments.format, arguments.matrix, arguments.output):
        print(path)
    return OK


def _attest(arguments: argparse.Namespace) -> int:
    from assay.attestation import attest
    from assay.report.selection import Selection

    selection = Selection(_names(arguments.family), _names(arguments.backend))
    path, said = attest(arguments.matrix, arguments.output, selection, arguments.key)
    print(path)
    print(f"assay: {said}", file=sys.stderr)
    return OK


def _verify(arguments: argparse.Namespace) -> int:
    from assay.verification import listing, to_json, verify

    checked = verify(arguments.bundle, arguments.key)
    print(to_json(checked) if arguments.json else listing(checked))
    return OK if all(each.cell for each in checked) else BAD


def _show(arguments: argparse.Namespace) -> int:
    from assay.report.selection import LATENCY, Selection
    from assay.report.terminal import print_matrix
    from assay.report_files import read_matrix

    selection = Selection(
        _names(arguments.family), _names(arguments.backend), arguments.metric or LATENCY, arguments.sort
    )
    matrix = read_matrix(arguments.matrix)
    if arguments.json:
        print(selection.of(matrix).model_dump_json(indent=1))
    else:
        print_matrix(matrix, selection=selection)
    return OK


def _names(options: Sequence[str]) -> list[str]:
    """Names of an option that may be given several times, with several names each."""
    return [name for each in options for name in each.split(",") if name]


def _explain(arguments: argparse.Namespace) -> int:
    from assay.report import explain
    from assay.report_files import read_matrix

    cells = explain.find(read_matrix(arguments.matrix), arguments.family, arguments.backend, arguments.precision)
    if arguments.json:
        print(json.dumps([cell.model_dump(mode="json") for cell in cells], indent=1))
    else:
        explain.print_cells(cells)
    return OK


def _doctor(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from assay.doctor import examine

    diagnoses = examine()
    if arguments.json:
        print(json.dumps([{**asdict(each), "ready": each.ready} for each in diagnoses], indent=1))
        return OK
    for each in diagnoses:
        verdict = "✔ ready" if each.ready else "! incomplete" if each.available else "✘ cannot run"
        print(f"{verdict:<13} {each.backend}: {each.reason}")
        lines = [f"computes in {', '.join(each.precisions)}"] if each.precisions else []
        lines += [f"looked for: {what}" for what in each.looked_for]
        if each.missing:
            lines.append(f"not installed here: {', '.join(each.missing)}; `{each.remedy}` has an environment for it")
        for line in lines:
            print(f"{'':<13}   {line}")
    return OK


def _cache(arguments: argparse.Namespace) -> int:
    from assay import cache

    actions = ("list", "prune", "clear")
    if arguments.action not in actions:
        raise unknown("action", arguments.action, actions)
    if arguments.to is not None and arguments.action != "prune":
        raise UsageError("--to goes with `assay cache prune`")
    limit = cache.cap()  # refused here, if it is no size, whatever was asked for
    removed = None
    if arguments.action == "prune":
        removed = cache.prune(limit if arguments.to is None else cache.parse_size(arguments.to, "--to"))
    elif arguments.action == "clear":
        removed = cache.clear()
    print(json.dumps(cache.to_json(removed), indent=1) if arguments.json else cache.listing(removed))
    return OK


def _schema(arguments: argparse.Namespace) -> int:
    from assay.known_failures import KnownFailures
    from assay.matrix import Matrix
    from assay.records import Record
    from assay.session_report import SessionReport

    records: dict[str, type[Record]] = {"session": SessionReport, "matrix": Matrix, "expected": KnownFailures}
    if arguments.record not in records:
        raise unknown("record", arguments.record, records)
    print(json.dumps(records[arguments.record].model_json_schema(mode="serialization"), indent=1))
    return OK


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run, "merge": _merge, "expect": _expect, "compare": _compare, "export": _export, "attest": _attest,
    "verify": _verify, "show": _show, "explain": _explain, "doctor": _doctor, "cache": _cache, "schema": _schema,
}  # fmt: skip
