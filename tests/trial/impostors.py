"""The trial's impostors: each is run as a user would run it, and is caught if it gets the status that it deserves."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from assay.machine import threads
from assay.schema import Cell, Precision, Status
from assay.session_report import SessionReport

FOLDER = Path(__file__).parents[1] / "impostors"
LIMIT = 900
"""Seconds that one impostor may take, all of its families together."""


@dataclass(frozen=True)
class Impostor:
    """A backend that must be caught.

    Attributes:
        name: the backend.
        expected: the status that it deserves.
        pretends: how.
        families: the rows in which it is tried.
        precision: in which it says that it computes.
    """

    name: str
    expected: Status
    pretends: str
    families: tuple[str, ...] = ("bert",)
    precision: Precision = Precision.F32


MOCK, INACCURATE, FALLBACK = Status.MOCK, Status.INACCURATE, Status.FALLBACK
UNPROVEN, FAILED = Status.UNPROVEN, Status.FAILED

IMPOSTORS = (
    # Mocks: what they answer follows neither inputs nor weights.
    Impostor("magic", MOCK, "a MagicMock for an output"),
    Impostor("mock-handler", MOCK, "a MagicMock for the engine: the handler is not None"),
    Impostor("mock-config", MOCK, "config.hidden_size of a MagicMock is there, and outputs of that size"),
    Impostor("mock-cuda", MOCK, "device, output and kernel have cuda in their names"),
    Impostor("says-real", MOCK, "the output says of itself that it is real"),
    Impostor("mock-memory", MOCK, "150 MB of ones are reported as memory of the device"),
    Impostor("yes", MOCK, "every attribute of its outputs answers yes"),
    Impostor("zeros", MOCK, "zeros of the right shape"),
    Impostor("constant", MOCK, "the mean of the right answer everywhere"),
    Impostor("random", MOCK, "random numbers of the right mean and spread"),
    Impostor("random-weights", MOCK, "the right architecture with weights of its own"),
    # What is remembered, or not done while the clock runs, is a mock of a measurement.
    Impostor("canned", MOCK, "the model's answer to another text, ready for every shape"),
    Impostor("cached", MOCK, "the first answer for a shape, whatever the input"),
    Impostor("cached-by-hash", MOCK, "an input that comes again is answered from memory"),
    Impostor("cached-by-first-tokens", MOCK, "inputs that begin alike are answered alike"),
    Impostor("lazy", MOCK, "its outputs are computed when they are read"),
    Impostor("fills-later", MOCK, "computes, and fills its outputs a little after it has returned"),
    Impostor("first-row", MOCK, "of a large batch, computes the first row"),
    Impostor("stopped-clock", MOCK, "turns the clock back by what its calls take"),
    Impostor("unsynchronised", MOCK, "hands every call to a queue and returns at once"),
    Impostor("frozen", MOCK, "answers every step of decoding with the prompt's logits", ("language-model",)),
    # They behave while they are looked at.
    Impostor("honest-at-first", MOCK, "computes in challenges and warm-up, then repeats itself"),
    Impostor("honest-later", MOCK, "zeros in the challenges, computes when it is measured"),
    Impostor("watches-the-loop", MOCK, "looks up the stack, and remembers where the timed loop is calling"),
    Impostor("skips-every-other", MOCK, "in the timed loop, answers every other call like the one before it"),
    Impostor("mutates-inputs", MOCK, "overwrites its inputs, and answers what it has put there"),
    # They reach for the judge.
    Impostor("hunts-answers", MOCK, "looks for expected outputs in folders and memory; finds none, answers zeros"),
    # Their evidence is spoiled: nothing is left to be judged.
    Impostor("rewrites-outputs", FAILED, "computes what was kept of the timed loop afterwards, rewrites the files"),
    Impostor("forges-evidence", MOCK, "prints a response, leaves a process that rewrites the judge's"),
    # Right numbers, from elsewhere.
    Impostor("torch-inside", FALLBACK, "torch computes in an OpenVINO column, with a trace of its own invention"),
    Impostor("runs-the-reference", FALLBACK, "the judge's own reference computes, on the checkpoint that it found"),
    Impostor("silent-fallback", FALLBACK, "asked for the GPU, takes the processor without a word"),
    Impostor("cpu-called-cuda", FALLBACK, "torch on the processor; device and trace say cuda:0"),
    Impostor("partial", FALLBACK, "the encoder runs in OpenVINO; the trace shows all of it in ONNX Runtime", ("t5",)),
    Impostor("helper-process", FALLBACK, "a process beside the runner computes, with another runtime"),
    # Lower precision, or a state that is wrong: really computed, but something else than was declared.
    Impostor("lowered", INACCURATE, "computes in bf16 what f32 is claimed for"),
    Impostor("widened", INACCURATE, "told bf16, computes in f32 without a word", precision=Precision.BF16),
    Impostor("stale", INACCURATE, "does not forget the last sequence", ("llama",)),
    # In a row all of whose matrices matter: the seed may choose any of them.
    Impostor("stale-export", INACCURATE, "keeps exports by a part of the weights, and serves an old one", ("llama",)),
    # Right numbers, in a process that is not as it should be, or with nothing but their own word for them.
    Impostor("slows-the-clock", UNPROVEN, "has the clock of its process go at half speed"),
    Impostor("numpy-inside", UNPROVEN, "numpy computes while ONNX Runtime idles; the trace is invented"),
    Impostor("patched", UNPROVEN, "replaces a method of its runtime by one that computes the same"),
    Impostor("mocked", UNPROVEN, "computes, and keeps a mock for another day"),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of an impostor in one family; `caught` if the status is the expected one, and no other."""

    name: str
    family: str
    expected: str
    status: str
    caught: bool
    reason: str


def installed(folder: Path) -> str:
    """A `PYTHONPATH` on which the impostors are installed, as a distribution with entry points in that folder."""
    sys.path.insert(0, str(FOLDER))
    import assay_impostors

    assay_impostors.install(folder)
    return os.pathsep.join(filter(None, (str(folder), str(FOLDER), os.environ.get("PYTHONPATH", ""))))


def run(progress: Callable[[str], None], impostors: Sequence[Impostor] = IMPOSTORS) -> list[Outcome]:
    """Run every impostor in a session of its own, as many at once as there are cores.

    Args:
        progress: told of each one that has ended, in a line.
        impostors: those to run.

    Returns:
        Outcomes, in the order of the list.
    """
    with tempfile.TemporaryDirectory(prefix="assay-trial-") as folder, ThreadPoolExecutor(threads()) as pool:
        path = installed(Path(folder, "site"))
        running = {pool.submit(_outcomes, each, path, Path(folder, each.name)): each for each in impostors}
        found: dict[str, list[Outcome]] = {}
        for future in as_completed(running):
            name = running[future].name
            found[name] = future.result()
            for outcome in found[name]:
                verdict = "caught" if outcome.caught else f"NOT caught, expected {outcome.expected}"
                progress(f"{outcome.name} in {outcome.family}: {outcome.status}, {verdict}")
    return [outcome for impostor in impostors for outcome in found[impostor.name]]


def _outcomes(impostor: Impostor, path: str, reports: Path) -> list[Outcome]:
    """One for each family; where there is no report, the status is `no report`, which catches nobody."""
    try:
        cells = _cells(impostor, path, reports)
    except (ValueError, subprocess.TimeoutExpired) as error:
        cells, missing = {}, str(error)
    else:
        missing = "the report has no such cell"
    found = {family: (str(cell.status), cell.reason) for family, cell in cells.items()}
    return [
        Outcome(impostor.name, family, str(impostor.expected), status, status == impostor.expected, reason)
        for family in impostor.families
        for status, reason in [found.get(family, ("no report", missing))]
    ]


def _cells(impostor: Impostor, path: str, reports: Path) -> dict[str, Cell]:
    """The cells of the report as the command printed it: what an impostor writes elsewhere is no part of it."""
    done = subprocess.run(
        [sys.executable, "-m", "assay", "run", "--backend", impostor.name, "--family", ",".join(impostor.families),
         "--precision", impostor.precision, "--reports", str(reports), "--json"],
        capture_output=True, text=True, timeout=LIMIT, stdin=subprocess.DEVNULL, check=False,
        env=os.environ | {"PYTHONPATH": path},
    )  # fmt: skip
    try:
        report = SessionReport.model_validate_json(done.stdout)
    except ValueError:
        raise ValueError(f"exit code {done.returncode}, no report: {done.stderr[-500:]}") from None
    return {cell.family: cell for cell in report.cells}
