"""A role server: imports once, executes nothing, forks one process for every role that it is asked for.

`python -m assay.roles.server MODULE...` answers JSON lines. A request names a role and its folder;
the answers are `{"ready": ...}`, then for each request `{"pid": ...}` and `{"status": ..., "cpu": ...}`.

A fork after a threaded operation hangs, so the server only imports; where an import left a thread
behind, or the system cannot fork safely, each role gets a fresh process instead.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import traceback
from pathlib import Path
from typing import IO

from assay.errors import Unavailable, UsageError

ROLES = ("builder", "runner", "judge")
ERROR_FILE = "error.json"
_PR_SET_PDEATHSIG = 1


def silence_telemetry() -> None:
    """Make OpenVINO take its own telemetry stub, as it does where its telemetry package is not installed."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def main(preload: list[str]) -> None:
    """Serve until standard input ends."""
    silence_telemetry()
    _die_with_parent(signal.SIGTERM)
    # Prints of imported libraries must not reach the pipe that carries the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for module in preload:
        importlib.import_module(module)
    _hide_progress_bars()
    forks = sys.platform == "linux" and _threads() == 1
    _answer(answers, {"ready": True, "forks": forks})
    for line in sys.stdin:
        request = json.loads(line)
        pid = _fork(request) if forks else _spawn(request)
        _answer(answers, {"pid": pid})
        _answer(answers, _wait(pid))


def _hide_progress_bars() -> None:
    """Transformers draws one for every load; the end of a log is for errors."""
    if "transformers" in sys.modules:
        importlib.import_module("transformers.utils.logging").disable_progress_bar()


def _threads() -> int:
    return sum(1 for _ in Path("/proc/self/task").iterdir())


def _answer(stream: IO[str], record: dict[str, object]) -> None:
    stream.write(json.dumps(record) + "\n")
    stream.flush()


def _die_with_parent(number: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, number)


def _fork(request: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        os.setsid()
        _die_with_parent(signal.SIGKILL)
        log = os.open(Path(request["folder"]) / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        code = perform(request["role"], Path(request["folder"]))
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # the server's own clean-up must not run twice


def _spawn(request: dict[str, str]) -> int:
    with (Path(request["folder"]) / "log").open("ab") as log:
        command = [sys.executable, "-m", "assay.roles.server", "--perform", request["role"], request["folder"]]
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
    _spawned[process.pid] = process
    return process.pid


_spawned: dict[int, subprocess.Popen[bytes]] = {}


def _wait(pid: int) -> dict[str, object]:
    if pid in _spawned and not hasattr(os, "wait4"):
        return {"status": _spawned.pop(pid).wait(), "cpu": None}
    _, status, usage = os.wait4(pid, 0)
    if pid in _spawned:
        _spawned.pop(pid).returncode = os.waitstatus_to_exitcode(status)
    return {"status": os.waitstatus_to_exitcode(status), "cpu": usage.ru_utime + usage.ru_stime}


def perform(role: str, folder: Path) -> int:
    """Run a role in this process: `request.json` in, `response.json` out, or `error.json` with the reason."""
    try:
        module = importlib.import_module(f"assay.roles.{role}")
        request = json.loads((folder / "request.json").read_text(encoding="utf-8"))
        response = module.perform(request, folder)
        draft = folder / ".response.json"
        draft.write_text(json.dumps(response), encoding="utf-8")
        draft.rename(folder / "response.json")
    except BaseException as error:  # noqa: BLE001 (whatever it is, the parent is told)
        traceback.print_exc()
        (folder / ERROR_FILE).write_text(json.dumps(_described(error)), encoding="utf-8")
        return 1
    return 0


def _described(error: BaseException) -> dict[str, object]:
    text = str(error).strip()
    reason = text if isinstance(error, UsageError | Unavailable) else f"{type(error).__name__}: {text}"
    return {
        # One line of all of them: what runtimes write first is often where, and only then what.
        "reason": textwrap.shorten(reason, 400, placeholder=" ..."),
        "unavailable": list(error.looked_for) if isinstance(error, Unavailable) else None,
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["--perform"]:
        silence_telemetry()
        sys.exit(perform(sys.argv[2], Path(sys.argv[3])))
    main(sys.argv[1:])
