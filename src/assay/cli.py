"""The command line: parse, call, print. Whatever is heavy is imported by the command that needs it."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from assay import __version__
from assay.errors import UsageError, unknown

if TYPE_CHECKING:
    from assay.schema import Matrix

REPORTS = Path("reports")
OK, BAD, USAGE, INTERRUPTED = 0, 1, 2, 130

EXIT_CODES = """\
exit codes:
  0    run: every cell is REAL or UNAVAILABLE; merge: every file was read; else: done
  1    run: some cell is anything else (--require-real: or UNAVAILABLE);
       merge: some file could not be read, the others are merged;
       both with --expect: some cell is not as expected, in a line each
  2    a mistake in what was asked for, in one line
  130  interrupted; what was finished is kept
"""


class Parser(argparse.ArgumentParser):
    """Raises a UsageError instead of printing the usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """One line, and where to look."""
        raise UsageError(f"{message}; see `{self.prog} --help`")


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
    parser, commands = _parser()
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
    call: Callable[[argparse.Namespace], int] = arguments.call
    return call(arguments)


class Command(Parser):
    """A command's parser; it remembers its options, so that a misspelt one can be answered."""

    options: tuple[str, ...] = ("--help",)

    def option(self, *names: str, **settings: object) -> None:
        """Add an option."""
        self.add_argument(*names, **settings)  # type: ignore[arg-type]
        self.options += names


def _parser() -> tuple[Parser, dict[str, Command]]:
    parser = Parser(
        prog="assay", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Does this model really run on this backend, and how well?\n\n"
        "Runs model families on inference backends, collects evidence of what was computed, from which\n"
        "weights, where and when, and merges the reports of all backends into one status matrix.",
        epilog="examples:\n"
        "  assay doctor                                     which backends can run here\n"
        "  assay run --backend openvino                     all families, local test models\n"
        "  assay run --backend cpu --family bert,t5         two of them\n"
        "  assay run --backend cpu ./my-bert                a checkpoint of your own, in the row that it fits\n"
        "  assay run --backend cpu --model llama=org/name   one of the hub, in the row that you name\n"
        "  assay run --backend cpu --only-failed            again what was not REAL\n"
        "  assay merge                                      reports/sessions into one matrix\n"
        "  assay expect --output expected.json              what failed is known: run --expect expected.json\n"
        "  assay show --json                                the matrix, for a program\n"
        "  assay explain t5 openvino                        how that status was concluded\n"
        "  assay cache prune --to 5G                        keep what was used last\n\n" + EXIT_CODES,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"assay {__version__}")
    group = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Command)

    def command(name: str, call: Callable[[argparse.Namespace], int], text: str, epilog: str = "") -> Command:
        added: Command = group.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        added.set_defaults(call=call)
        return added

    run = command("run", _run, "run families on one backend and write a session report", EXIT_CODES)
    run.option("--backend", metavar="NAME", help="the column: cpu, cuda, openvino, onnxruntime or a plugin's")
    run.option("--family", metavar="ID", action="append", default=[],
               help="a row, or several with commas; repeatable; all by default")  # fmt: skip
    run.add_argument("sources", metavar="SOURCE", nargs="*",
                     help="a checkpoint (safetensors) of your own: a folder, or org/name[@revision] of the hub; it "
                     "finds its row by its architecture")  # fmt: skip
    run.option("--model", metavar="FAMILY=SOURCE", action="append", default=[],
               help="a checkpoint of your own instead of that row's test model; repeatable")  # fmt: skip
    run.option("--size", default="tiny", help="of the test models (default: tiny)")
    run.option("--precision", default="f32", help="what the backend is told to compute in (default: f32)")
    run.option("--device", metavar="KIND[:N]", help="cuda:1, say (default: the backend's first)")
    run.option("--reports", metavar="DIR", type=Path, default=REPORTS, help="where sessions/ is (default: reports)")
    run.option("--timeout", metavar="SECONDS", type=float, default=600.0,
               help="for each phase of each role, then it is killed (default: 600)")  # fmt: skip
    run.option("--resume", action="store_true", help="go on with the newest report of the same plan")
    run.option("--only-failed", action="store_true",
               help="as --resume, and run again what is neither REAL nor UNAVAILABLE there")  # fmt: skip
    run.option("--expect", metavar="FILE", type=Path, help="known failures, which are no reason to exit 1")
    run.option("--require-real", action="store_true", help="exit 1 for UNAVAILABLE cells too")
    run.option("--json", action="store_true", help="print the session report, and no progress")

    merge = command("merge", _merge, "merge session reports into matrix.json and STATUS.md, and print the matrix",
                    EXIT_CODES)  # fmt: skip
    merge.add_argument("paths", metavar="PATH", type=Path, nargs="*", default=[REPORTS / "sessions"],
                       help="reports, and folders of them (default: reports/sessions)")  # fmt: skip
    merge.option("--output", metavar="DIR", type=Path, default=REPORTS, help="where to write (default: reports)")
    merge.option("--expect", metavar="FILE", type=Path, help="exit 1 if some cell is neither REAL nor a known failure")
    merge.option("--json", action="store_true", help="print the matrix as JSON")

    expect = command("expect", _expect, "list the cells that are not REAL, for --expect")
    expect.add_argument("paths", metavar="PATH", type=Path, nargs="*", default=[REPORTS / "sessions"],
                        help="a matrix, or reports and folders of them (default: reports/sessions)")  # fmt: skip
    expect.option("--output", metavar="FILE", type=Path, help="where to write (default: standard output)")

    show = command("show", _show, "print a merged matrix, its statuses concluded anew from its evidence")
    show.add_argument("matrix", metavar="MATRIX", type=Path, nargs="?", default=REPORTS / "matrix.json",
                      help="default: reports/matrix.json")  # fmt: skip
    show.option("--json", action="store_true", help="print it as JSON")

    explain = command("explain", _explain, "say how a cell's status follows from what was measured")
    explain.add_argument("family", metavar="FAMILY", help="the row, such as bert")
    explain.add_argument("backend", metavar="BACKEND", help="the column, such as openvino")
    explain.option("--matrix", metavar="FILE", type=Path, default=REPORTS / "matrix.json",
                   help="default: reports/matrix.json")  # fmt: skip
    explain.option("--json", action="store_true", help="print the cells as JSON")

    doctor = command("doctor", _doctor, "say which backends can run here, and why not")
    doctor.option("--json", action="store_true", help="print it as JSON")

    cache = command("cache", _cache, "list, prune or clear what is kept of test models and exports")
    cache.add_argument("action", metavar="ACTION", nargs="?", default="list", help="list (default), prune or clear")
    cache.option("--to", metavar="SIZE", help="with prune: what may be kept, such as 500M or 20G (default: the cap)")
    cache.option("--json", action="store_true", help="print it as JSON")

    schema = command("schema", _schema, "print the JSON Schema of a report")
    schema.add_argument("record", nargs="?", default="session", help="session (default), matrix or expected")
    return parser, {
        "run": run, "merge": merge, "expect": expect, "show": show, "explain": explain, "doctor": doctor,
        "cache": cache, "schema": schema,
    }  # fmt: skip


def _run(arguments: argparse.Namespace) -> int:
    if arguments.backend is None:
        from assay import backends

        raise UsageError(f"which backend? --backend takes one of {', '.join(backends.names())}")
    families = [name for each in arguments.family for name in each.split(",") if name]
    if arguments.family and not families:
        raise UsageError("--family names no family")
    models = _models(arguments.model)
    from assay.plan import make_plan

    plan = make_plan(
        backend=arguments.backend, families=families, models=models, found=arguments.sources, size=arguments.size,
        precision=arguments.precision, timeout=arguments.timeout, device=arguments.device,
    )  # fmt: skip
    from assay import cache, expect, progress
    from assay.schema import Status
    from assay.session import run_session

    known = expect.read(arguments.expect) if arguments.expect else ()
    _writable(arguments.reports / "sessions")
    keep = {Status.REAL, Status.UNAVAILABLE} if arguments.only_failed else set(Status) if arguments.resume else None
    cap, started = cache.cap(), time.time()
    shown = progress.choose(quiet=arguments.json)
    try:
        with cache.held():
            report = run_session(plan, arguments.reports, progress=shown, keep=keep)
    except KeyboardInterrupt:
        shown.finished()
        again = "--only-failed" if arguments.only_failed else "--resume"
        kept = f"finished cells are kept in {arguments.reports / 'sessions'}, {again} goes on from there"
        print(f"assay: interrupted; {kept}", file=sys.stderr)
        return INTERRUPTED
    except BaseException:
        shown.finished()  # or the live line would hide the traceback
        raise
    if arguments.json:
        print(report.model_dump_json(indent=1))
    else:
        print(arguments.reports / "sessions" / f"{report.backend}-{report.id}.json", file=sys.stderr)
    for line in cache.enforce(cap, started):
        print(f"assay: {line}", file=sys.stderr)
    surprises = expect.surprises(report.cells, known, require_real=arguments.require_real)
    if arguments.expect:
        _complain(surprises)
    return BAD if surprises else OK


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
    from assay import backends, expect, families
    from assay import merge as merging
    from assay.files import write_atomically
    from assay.report import markdown

    if not any(path.exists() for path in arguments.paths):
        missing = ", ".join(map(str, arguments.paths))
        raise UsageError(f"{missing}: no such file or folder; `assay run --backend cpu` writes reports/sessions")
    known = expect.read(arguments.expect) if arguments.expect else ()
    reports, problems = merging.read(arguments.paths)
    for problem in problems:
        print(f"assay: skipped {problem}", file=sys.stderr)
    if not any(report.cells for report in reports):
        what = "no cell in any session report" if reports else "no session report"
        where = ", ".join(map(str, arguments.paths))
        raise UsageError(f"{what} that can be read in {where}; `assay run --backend cpu` writes one")
    matrix = merging.merge(reports, families.names(), backends.names())
    _writable(arguments.output)
    write_atomically(arguments.output / "matrix.json", matrix.model_dump_json(indent=1) + "\n")
    write_atomically(arguments.output / "STATUS.md", markdown.render(matrix))
    _print(matrix, as_json=arguments.json)
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
    print(f"{arguments.output}: {count} known {'failure' if count == 1 else 'failures'}", file=sys.stderr)
    return OK


def _show(arguments: argparse.Namespace) -> int:
    from assay.merge import read_matrix

    _print(read_matrix(arguments.matrix), as_json=arguments.json)
    return OK


def _explain(arguments: argparse.Namespace) -> int:
    from assay.merge import read_matrix
    from assay.report import explain

    cells = explain.find(read_matrix(arguments.matrix), arguments.family, arguments.backend)
    if arguments.json:
        print(json.dumps([cell.model_dump(mode="json") for cell in cells], indent=1))
    else:
        explain.print_cells(cells)
    return OK


def _print(matrix: Matrix, *, as_json: bool) -> None:
    if as_json:
        print(matrix.model_dump_json(indent=1))
    else:
        from assay.report.terminal import print_matrix

        print_matrix(matrix)


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
        lines = [f"looked for: {what}" for what in each.looked_for]
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
    from assay.schema import KnownFailures, Matrix, Record, SessionReport

    records: dict[str, type[Record]] = {"session": SessionReport, "matrix": Matrix, "expected": KnownFailures}
    if arguments.record not in records:
        raise unknown("record", arguments.record, records)
    print(json.dumps(records[arguments.record].model_json_schema(mode="serialization"), indent=1))
    return OK
