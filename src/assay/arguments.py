"""The commands and their options: what `--help` says."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from assay import __version__
from assay.errors import UsageError

REPORTS = Path("reports")
EXIT_CODES = """\
exit codes:
  0    run: every cell is REAL or UNAVAILABLE; merge: every file was read; else: done
  1    run: some cell is anything else (--require-real: or UNAVAILABLE);
       merge: some file could not be read, the others are merged;
       both with --expect: some cell is not as expected, in a line each;
       compare: something got worse; verify: some attestation does not hold;
       run --replay: some verdict is another one than in the report, in a line each
  2    a mistake in what was asked for, in one line
  130  interrupted; what was finished is kept
"""


class Parser(argparse.ArgumentParser):
    """Raises a UsageError instead of printing the usage and exiting."""

    def error(self, message: str) -> NoReturn:
        """One line, and where to look."""
        raise UsageError(f"{message}; see `{self.prog} --help`")


class Command(Parser):
    """A command's parser; it remembers its options, so that a misspelt one can be answered."""

    options: tuple[str, ...] = ("--help",)

    def option(self, *names: str, **settings: object) -> None:
        """Add an option."""
        self.add_argument(*names, **settings)  # type: ignore[arg-type]
        self.options += names


def make_parser() -> tuple[Parser, dict[str, Command]]:
    """The parser, and those of its commands by name."""
    parser = Parser(
        prog="assay", allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Does this model really run on this backend, and how well?\n\n"
        "Runs model families on inference backends, collects evidence of what was computed, from which\n"
        "weights, where and when, and merges the reports of all backends into one status matrix.",
        epilog="examples:\n"
        "  assay doctor                                     which backends can run here\n"
        "  assay run --backend openvino                     all families, local test models\n"
        "  assay run --backend cpu --family bert,t5         two of them\n"
        "  assay run --backend cpu --precision f32,bf16     each family in both\n"
        "  assay run --backend cpu ./my-bert                a checkpoint of your own, in the row that it fits\n"
        "  assay run --backend cpu --model llama=org/name   one of the hub, in the row that you name\n"
        "  assay run --backend cpu --only-failed            again what was not REAL\n"
        "  assay merge                                      reports/sessions into one matrix\n"
        "  assay expect --output expected.json              what failed is known: run --expect expected.json\n"
        "  assay compare baseline.json reports/matrix.json  what changed; exit 1 if something got worse\n"
        "  assay export github-benchmark                    the figures, as another program reads them\n"
        "  assay attest --key key.pem                       who ran it vouches for it; assay verify checks\n"
        "  assay show --metric peak_memory --sort cpu       memory, the smallest on cpu first\n"
        "  assay show --json                                the matrix, for a program\n"
        "  assay explain t5 openvino                        how that status was concluded\n"
        "  assay cache prune --to 5G                        keep what was used last\n\n" + EXIT_CODES,
    )  # fmt: skip
    parser.add_argument("--version", action="version", version=f"assay {__version__}")
    group = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Command)

    commands: dict[str, Command] = {}

    def command(name: str, text: str, epilog: str = "") -> Command:
        added: Command = group.add_parser(
            name, help=text, description=f"{text[0].upper()}{text[1:]}.", epilog=epilog, allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        commands[name] = added
        return added

    run = command("run", "run families on one backend and write a session report", EXIT_CODES)
    run.option("--backend", metavar="NAME",
               help="the column: cpu, cuda, openvino, onnxruntime, or another that `assay doctor` lists")  # fmt: skip
    run.option("--family", metavar="ID", action="append", default=[],
               help="a row, or several with commas; repeatable; all by default")  # fmt: skip
    run.add_argument("sources", metavar="SOURCE", nargs="*",
                     help="a checkpoint (safetensors) of your own: a folder, or org/name[@revision] of the hub; it "
                     "finds its row by its architecture")  # fmt: skip
    run.option("--model", metavar="FAMILY=SOURCE", action="append", default=[],
               help="a checkpoint of your own instead of that row's test model; repeatable")  # fmt: skip
    run.option("--size", default="tiny", help="of the test models (default: tiny)")
    run.option("--precision", metavar="P", action="append", default=[],
               help="f32, bf16, f16 or int8, or several with commas: a cell for each; what is not here is UNAVAILABLE "
               "(default: f32)")  # fmt: skip
    run.option("--device", metavar="KIND[:N]", help="cuda:1, say (default: the backend's first)")
    run.option("--reports", metavar="DIR", type=Path, default=REPORTS, help="where sessions/ is (default: reports)")
    run.option("--timeout", metavar="SECONDS", type=float, default=600.0,
               help="for each phase of each role, then it is killed (default: 600)")  # fmt: skip
    run.option("--resume", action="store_true", help="go on with the newest report of the same plan")
    run.option("--only-failed", action="store_true",
               help="as --resume, and run again what is neither REAL nor UNAVAILABLE there")  # fmt: skip
    run.option("--expect", metavar="FILE", type=Path, help="known failures, which are no reason to exit 1")
    run.option("--replay", metavar="REPORT", type=Path,
               help="one cell of it once more, on the inputs that it had; exit 1 if a verdict differs")  # fmt: skip
    run.option("--require-real", action="store_true", help="exit 1 for UNAVAILABLE cells too")
    run.option("--json", action="store_true", help="print the session report, and no progress")

    what = "merge session reports into index.html, matrix.json, STATUS.md and junit.xml, and print the matrix"
    merge = command("merge", what, EXIT_CODES)
    merge.add_argument("paths", metavar="PATH", type=Path, nargs="*", default=[REPORTS / "sessions"],
                       help="reports, and folders of them (default: reports/sessions)")  # fmt: skip
    merge.option("--output", metavar="DIR", type=Path, default=REPORTS, help="where to write (default: reports)")
    merge.option("--expect", metavar="FILE", type=Path,
                 help="known failures: exit 1 for any other that ran and is not REAL, or if one has gone")  # fmt: skip
    merge.option("--baseline", metavar="FILE", type=Path,
                 help="a matrix, or reports of it: index.html marks what changed since")  # fmt: skip
    _add_threshold(merge)
    merge.option("--json", action="store_true", help="print the matrix as JSON")

    expect = command("expect", "list the cells that ran and are not REAL, for --expect")
    expect.add_argument("paths", metavar="PATH", type=Path, nargs="*", default=[REPORTS / "sessions"],
                        help="a matrix, or reports and folders of them (default: reports/sessions)")  # fmt: skip
    expect.option("--output", metavar="FILE", type=Path, help="where to write (default: standard output)")

    _add_readers(command)
    doctor = command("doctor", "say which backends can run here, and why not")
    doctor.option("--json", action="store_true", help="print it as JSON")

    cache = command("cache", "list, prune or clear what is kept of test models, exports and compiled kernels")
    cache.add_argument("action", metavar="ACTION", nargs="?", default="list", help="list (default), prune or clear")
    cache.option("--to", metavar="SIZE", help="with prune: what may be kept, such as 500M or 20G (default: the cap)")
    cache.option("--json", action="store_true", help="print it as JSON")

    schema = command("schema", "print the JSON Schema of a report")
    schema.add_argument("record", nargs="?", default="session", help="session (default), matrix or expected")
    return parser, commands


def _add_threshold(command: Command) -> None:
    command.option("--threshold", metavar="PERCENT", type=float, default=5.0,
                   help="the least change of a figure that counts (default: 5)")  # fmt: skip


def _add_readers(command: Callable[..., Command]) -> None:
    """The commands that read what `merge` wrote."""
    compare = command("compare", "say what changed between two matrices, or session reports of them", EXIT_CODES)
    for side in ("base", "new"):
        compare.add_argument(side, metavar=side.upper(), type=Path,
                             help="a matrix, or a session report or a folder of them")  # fmt: skip
    _add_threshold(compare)
    compare.option("--json", action="store_true", help="print it as JSON, figures without a change included")
    compare.option("--markdown", action="store_true", help="print it as Markdown")
    compare.option("--update-baseline", action="store_true", help="replace BASE by NEW, if nothing got worse")

    export = command("export", "write a merged matrix in a format that other programs read")
    export.add_argument("format", metavar="FORMAT",
                        help="junit, github-benchmark, bencher, pytorch, csv, parquet or badges")  # fmt: skip
    export.add_argument("matrix", metavar="MATRIX", type=Path, nargs="?", default=REPORTS / "matrix.json",
                        help="default: reports/matrix.json")  # fmt: skip
    export.option("--output", metavar="DIR", type=Path, default=REPORTS, help="where to write (default: reports)")

    attest = command(
        "attest", "write in-toto attestations of a merged matrix: checkpoint, environment, evidence, verdict"
    )
    attest.add_argument("matrix", metavar="MATRIX", type=Path, nargs="?", default=REPORTS / "matrix.json",
                        help="default: reports/matrix.json")  # fmt: skip
    attest.option("--family", metavar="ID", action="append", default=[], help="these rows, comma-separated")
    attest.option("--backend", metavar="B", action="append", default=[], help="these columns, comma-separated")
    attest.option("--key", metavar="FILE", type=Path, help="a private key in PEM, which signs them")
    attest.option("--output", metavar="DIR", type=Path, default=REPORTS, help="where to write (default: reports)")

    verify = command("verify", "say whether attestations hold, their statuses concluded anew", EXIT_CODES)
    verify.add_argument("bundle", metavar="FILE", type=Path, help="what `assay attest` wrote")
    verify.option("--key", metavar="FILE", type=Path, help="the public key, in PEM, of who signed them")
    verify.option("--json", action="store_true", help="print it as JSON")

    show = command("show", "print a merged matrix, its statuses concluded anew from its evidence")
    show.add_argument("matrix", metavar="MATRIX", type=Path, nargs="?", default=REPORTS / "matrix.json",
                      help="default: reports/matrix.json")  # fmt: skip
    show.option("--family", metavar="ID", action="append", default=[], help="these rows, comma-separated")
    show.option("--backend", metavar="B", action="append", default=[], help="these columns, comma-separated")
    show.option("--metric", metavar="NAME", help="the figure beside each status (default: latency)")
    show.option("--sort", metavar="B", help="rows by that figure in this column, the best first")
    show.option("--json", action="store_true", help="print it as JSON")

    explain = command("explain", "say how a cell's status follows from what was measured")
    explain.add_argument("family", metavar="FAMILY", help="the row, such as bert")
    explain.add_argument("backend", metavar="BACKEND", help="the column, such as openvino")
    explain.option("--precision", metavar="P", help="its cells of this precision only, such as bf16")
    explain.option("--matrix", metavar="FILE", type=Path, default=REPORTS / "matrix.json",
                   help="default: reports/matrix.json")  # fmt: skip
    explain.option("--json", action="store_true", help="print the cells as JSON")
