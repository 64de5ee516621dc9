"""A role server: imports once, executes nothing, forks one process for every role that it is asked for.

`python -m assay.roles.server MODULE...` answers JSON lines. A request names a role, its folder, and what else is to be
imported before; the answers are `{"ready": true}`, then for each request `{"folder": ..., "pid": ...}` and, when that
process has ended, `{"folder": ..., "status": ..., "cpu": ...}`. Requests that come before that run beside it.

A fork after a threaded operation hangs, so the server only imports; where an import left a thread
behind, or the system cannot fork safely, each role gets a fresh process instead.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import json
import os
import selectors
import signal
import subprocess
import sys
import textwrap
import traceback
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

from assay.errors import Unavailable, UsageError

ERROR_FILE = "error.json"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36


def silence_telemetry() -> None:
    """Make OpenVINO take its own telemetry stub, as it does where its telemetry package is not installed."""
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]


def main(preload: list[str]) -> None:
    """Serve until standard input ends."""
    silence_telemetry()
    _die_with_parent(signal.SIGTERM)
    _adopt_orphans()
    # Prints of imported libraries must not reach the pipe that carries the answers.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    _import(preload)
    _answer(answers, {"ready": True})
    _serve(answers)


def _import(modules: Sequence[str]) -> None:
    gc.disable()  # imports leave little to collect, and looking for it takes a tenth of their time
    for module in modules:
        importlib.import_module(module)
    _hide_progress_bars()
    # What is frozen no collection visits, in no child: visiting writes into every object's page, which copies it.
    gc.collect()
    gc.freeze()
    gc.enable()


def _forks() -> bool:
    return sys.platform == "linux" and _threads() == 1


def _serve(answers: IO[str]) -> None:
    """Start what is asked for and tell what has ended, until standard input ends."""
    running: dict[int, str] = {}
    unread = b""
    stdin = sys.stdin.fileno()
    with selectors.DefaultSelector() as selector:
        selector.register(stdin, selectors.EVENT_READ)
        child_ended = _child_ended()
        selector.register(child_ended, selectors.EVENT_READ)
        while True:
            ready = {key.fd for key, _ in selector.select()}
            if child_ended in ready:
                os.read(child_ended, 512)
                _tell_ended(answers, running)
            if stdin in ready:
                chunk = os.read(stdin, 65536)
                if not chunk:
                    return
                *lines, unread = (unread + chunk).split(b"\n")
                for line in lines:
                    request = json.loads(line)
                    if fresh := [module for module in request["imports"] if module not in sys.modules]:
                        with suppress(ImportError):  # the role that needs it will say so
                            _import(fresh)
                    pid = _fork(request) if _forks() else _spawn(request)
                    running[pid] = request["folder"]
                    _answer(answers, {"folder": request["folder"], "pid": pid})


def _child_ended() -> int:
    """A pipe that can be read when a child has ended."""
    readable, writable = os.pipe()
    os.set_blocking(writable, False)
    signal.signal(signal.SIGCHLD, lambda *_: None)  # without a handler nothing is written
    signal.set_wakeup_fd(writable)
    return readable


def _tell_ended(answers: IO[str], running: dict[int, str]) -> None:
    for pid in list(running):
        ended, status, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            if pid in _spawned:
                _spawned.pop(pid).returncode = os.waitstatus_to_exitcode(status)
            code, cpu = os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
            folder = running.pop(pid)
            _end_orphans(running)
            _answer(answers, {"folder": folder, "status": code, "cpu": cpu})


def _end_orphans(running: dict[int, str]) -> None:
    """Kill what an ended role has left behind: it would disturb measurements, and could rewrite what others wrote."""
    while orphans := _children() - running.keys():
        for pid in orphans:
            with suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _children() -> set[int]:
    """Processes below this one; none where the system does not tell."""
    files = Path("/proc/self/task").glob("*/children")
    return {int(pid) for file in files for pid in file.read_text(encoding="ascii").split()}


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


def _adopt_orphans() -> None:
    """Have what a role leaves behind become a child of this server, however often it forked. Linux alone can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _fork(request: dict[str, str]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
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
