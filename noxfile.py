"""One isolated environment per backend, one status matrix.

Commands:
    nox                               every backend, then the matrix: reports/index.html, STATUS.md, matrix.json
    nox -s cuda                       one backend, merged with the reports that are already there
    nox -s openvino -- --family bert  everything after -- goes to `assay run`
    nox -s cpu-compile                a column on demand: torch.compile on the processor
    nox -- --precision f32,bf16       every backend at both
    nox -s openvino -- --precision int8    weights in int8, which installs NNCF too
    nox -R                            the same again in the environments as they are
    nox -s matrix                     merges reports/sessions/ again
    nox -s compare -- base.json       what changed since then: reports/COMPARISON.md, and marks in index.html
    nox -s tests -- -k merge          everything after -- goes to pytest
    nox -s trial                      the judge on trial: mutants, impostors, honest runs
    nox -s bench -- --family bert     the engines against other ways to run the same models
    nox -s lint lock                  style and types; pins envs/ again
"""

from __future__ import annotations

import functools
import http.client
import os
import re
import shutil
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path

import nox

ROOT = Path(__file__).parent
ENVS = ROOT / "envs"
PYPROJECT = nox.project.load_toml(ROOT / "pyproject.toml")
BACKENDS = sorted(path.stem for path in ENVS.glob("*.txt"))
INT8 = ENVS / "extras" / "int8.txt"
"""What makes weights int8, with all that it needs."""
ON_DEMAND = {"cpu-compile": "cpu", "cuda-compile": "cuda"}
"""Columns that run when they are asked for, each with the pins of another one."""
QUANTISING = ("openvino",)
"""Columns that take it, when that is asked for."""
EVERYTHING = ENVS / "cuda.txt"
"""Agrees with the other files where they overlap, and pins what the CUDA build of torch brings besides."""

TORCH_INDEX = "https://download.pytorch.org/whl/cpu"
PATIENCE = 3.0
"""Seconds that the index above has to answer."""
CUDA_PACKAGE = re.compile(r"(?!nvidia-ml-py\b)(nvidia-|cuda-|triton\b)")
"""What the CUDA build of torch depends on, and nothing else does."""

nox.needs_version = ">=2026.10.20"
nox.options.default_venv_backend = "uv|virtualenv"


def backend_session(name: str, environment: str) -> Callable[[nox.Session], None]:
    """The session of one backend, with the pins of that environment."""

    def run(session: nox.Session) -> None:
        # First of all, so that the merge runs last whatever happens here; it takes one of this session's arguments.
        session.notify("matrix", posargs=asked(session, "--reports"))
        pins = ENVS / f"{environment}.txt"
        install(session, "-e", ".", "-c", pins)
        if device_found(session, name):
            install_runtime(session, pins)
            if name in QUANTISING and any("int8" in argument for argument in session.posargs):
                install(session, "-r", INT8, "-c", pins)
        session.run("assay", "run", "--backend", name, *session.posargs)

    run.__doc__ = f"Run every model family on the {name} backend."
    return run


for _name in BACKENDS:
    nox.session(name=_name, tags=["backend"])(backend_session(_name, _name))
for _name, _environment in ON_DEMAND.items():
    nox.session(name=_name, default=False)(backend_session(_name, _environment))


@nox.session
def matrix(session: nox.Session) -> None:
    """Merge all session reports into the status matrix; `-- --reports DIR` where they are not in reports/."""
    install(session, "-e", ".", "-c", EVERYTHING)
    _, reports = asked(session, "--reports") or ("", "reports")
    session.run("assay", "merge", f"{reports}/sessions", "--output", reports)


@nox.session(default=False)
def compare(session: nox.Session) -> None:
    """Compare with a baseline, `-- BASE`: COMPARISON.md, and marks in index.html; fails if something got worse."""
    install(session, "-e", ".", "-c", EVERYTHING)
    reports = ROOT / "reports" / "sessions"
    if session.posargs and reports.is_dir():
        # Exit 1 is a report that cannot be read, which the session `matrix` has said.
        against = ("--baseline", session.posargs[0], *asked(session, "--threshold"))
        merge = ("assay", "merge", str(reports), "--output", "reports", *against)
        session.run(*merge, success_codes=[0, 1], silent=True)
    with (ROOT / "reports" / "COMPARISON.md").open("w", encoding="utf-8") as page:
        session.run(
            "assay", "compare", *session.posargs, "reports/matrix.json", "--markdown", stdout=page, stderr=sys.stderr
        )


def asked(session: nox.Session, option: str) -> tuple[str, ...]:
    """The option and its value, if it is among the arguments after `--`; for a command that takes no others."""
    words = [word for argument in session.posargs for word in argument.split("=", 1)]
    return tuple(words[words.index(option) :][:2]) if option in words else ()


@nox.session(default=False)
def tests(session: nox.Session) -> None:
    """Run the tests where all CPU runtimes are installed."""
    install_every_cpu_runtime(session)
    # A worker a core, each of which holds all runtimes: 1 GiB. Tests of one file share expensive fixtures.
    session.run("pytest", "-n", "auto", "--maxprocesses", "4", "--dist", "loadscope", *session.posargs)


@nox.session(default=False)
def trial(session: nox.Session) -> None:
    """Put the judge on trial: mutants to kill, impostors to catch, honest runs to leave alone; `-- --full` for all."""
    install_every_cpu_runtime(session)
    session.run("python", "-m", "tests.trial", *session.posargs)


@nox.session(default=False)
def bench(session: nox.Session) -> None:
    """Time the engines beside the best other ways to run the same models; `-- --full` for the large ones too."""
    install(session, "-e", ".", "-c", EVERYTHING)
    install_runtime(session, ENVS / "openvino.txt", ENVS / "onnxruntime.txt")
    install(session, *group("bench"), "-c", ENVS / "openvino.txt")
    session.run("python", "-m", "tests.bench", *session.posargs)


@nox.session(default=False)
def lint(session: nox.Session) -> None:
    """Check style, format, types and the workflows."""
    install(session, "-e", ".", *group("lint"), "-c", EVERYTHING)
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("actionlint")


@nox.session(default=False)
def lock(session: nox.Session) -> None:
    """Resolve pyproject.toml into the pins of envs/; `-- --upgrade` moves what it leaves open."""
    install(session, *group("lock"))
    with tempfile.TemporaryDirectory() as folder:
        # All extras in one resolution first: whatever two files share then has one version.
        everything, cuda = Path(folder, "everything.txt"), Path(folder, "without.txt")
        write(everything, sorted({pin for path in ENVS.rglob("*.txt") for pin in pinned(path)}))
        compile_pins(session, everything, "--all-extras", *session.posargs)
        write(cuda, (pin for pin in pinned(everything) if CUDA_PACKAGE.match(pin)))
        for target in (*(ENVS / f"{name}.txt" for name in backend_extras()), INT8):
            pins = Path(folder, target.name)
            write(pins, pinned(everything))
            excluded = () if target == EVERYTHING else ("--excludes", cuda)
            compile_pins(session, pins, "--extra", target.stem, *excluded)
            shutil.copyfile(pins, target)


def backend_extras() -> list[str]:
    """The extras of pyproject.toml that are a backend's, whether it has an environment yet or not."""
    extras = PYPROJECT["project"]["optional-dependencies"]
    return [name for name in extras if (ROOT / "src/assay/backends" / f"{name}.py").is_file()]


def compile_pins(session: nox.Session, output: Path, *options: str | Path) -> None:
    """Pin what the options ask of pyproject.toml, for all platforms and Pythons; what the file pins already stays."""
    session.run(
        "uv", "pip", "compile", "pyproject.toml", "--universal", "--python-version", "3.11",
        "--fork-strategy", "fewest", "--quiet", "--output-file", output, *options,
        # Of the package index alone: a local wheel or torch's own index would leave its mark in the pins.
        env={"UV_CUSTOM_COMPILE_COMMAND": "nox -s lock", "UV_FIND_LINKS": None, "UV_TORCH_BACKEND": None},
    )  # fmt: skip


def write(path: Path, lines: Iterable[str]) -> None:
    """Write a requirements file."""
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def pinned(path: Path) -> list[str]:
    """The lines of a requirements file that pin something."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.lstrip().startswith("#")]


def group(name: str) -> tuple[str, ...]:
    """The requirements of a dependency group."""
    return nox.project.dependency_groups(PYPROJECT, name)


def install(session: nox.Session, *arguments: str | Path) -> None:
    """Install with pip or uv, under the same settings.

    uv reads none of pip's, and would fetch torch's CUDA build past a user's local wheels. Bytecode is left to the
    first import: compiling all of torch and transformers takes pip longer than unpacking them. That import has to write
    it, whatever is set for other Pythons (in containers often that none may): compiling takes five seconds a run.
    """
    session.env["PYTHONDONTWRITEBYTECODE"] = ""
    handed_on = {
        f"UV_{name}": os.environ[f"PIP_{name}"]
        for name in ("FIND_LINKS", "INDEX_URL", "EXTRA_INDEX_URL")
        if f"PIP_{name}" in os.environ and f"UV_{name}" not in os.environ
    }
    if "UV_EXTRA_INDEX_URL" in handed_on:
        handed_on["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # as pip does: all indexes count alike
    session.install("--no-compile", *map(str, arguments), env=handed_on)


def install_every_cpu_runtime(session: nox.Session) -> None:
    """One environment that holds all CPU columns, and what the tests need."""
    install(session, "-e", ".", *group("test"), "-r", INT8, "-c", EVERYTHING)
    install_runtime(session, ENVS / "openvino.txt", ENVS / "onnxruntime.txt")
    install(session, "--no-deps", *group("checkpoints"))


def device_found(session: nox.Session, backend: str) -> bool:
    """Whether the backend's device can be there at all, asked of the light package."""
    question = f"from assay.doctor import diagnose; print(diagnose({backend!r}).available)"
    # Asked with --install-only too: what is installed depends on it.
    return "True" in str(session.run_install("python", "-c", question, silent=True, log=False))


def install_runtime(session: nox.Session, *pins: Path) -> None:
    """Install pinned files; torch as its CPU build wherever that can be had, unless the CUDA build is asked for."""
    torch = next(pin for pin in pinned(pins[0]) if pin.startswith("torch=="))
    unwanted: Iterable[str] = ()
    if EVERYTHING in pins:
        unwanted = (f"torch!={torch.removeprefix('torch==')}+cpu",)  # a user's local wheels may offer it
    elif needs_cpu_index():
        install(session, "--no-deps", "--index-url", TORCH_INDEX, torch)
    # Constrained: should torch come as the CUDA build after all, then with the pins of that.
    install(session, *(f"--requirement={path}" for path in pins), *unwanted, "-c", EVERYTHING)


@functools.cache
def needs_cpu_index() -> bool:
    """Whether torch's CPU build is on an index of its own, as on Linux, and that index answers in time.

    Asked once, in a thread: a name server that is not there outlasts the socket's own time limit.
    """
    answers: list[int] = []

    def ask() -> None:
        try:
            with urllib.request.urlopen(f"{TORCH_INDEX}/torch/", timeout=PATIENCE) as answer:  # noqa: S310 (https)
                answers.append(answer.status)
        except (OSError, http.client.HTTPException):
            return

    if sys.platform != "linux":
        return False
    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PATIENCE)
    return bool(answers)
