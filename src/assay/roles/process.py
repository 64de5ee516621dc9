"""The parent's side of the roles: starts servers, asks them for processes, and survives whatever happens there."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from assay.machine import threads
from assay.roles import phases
from assay.roles.server import ERROR_FILE
from assay.schema import Failure, Phase

START = "start"
"""The phase before a role's own first one: imports, and the fork."""
LOG_TAIL = 4000
"""Characters of a failed role's log that the report keeps."""
_POLL = 0.1

OnPhase = Callable[[str, str], None]


class RoleFailed(Exception):
    """A role did not answer; `failure` says where and how, `unavailable` what hardware it missed."""

    def __init__(self, failure: Failure, ended: tuple[Phase, ...], unavailable: Sequence[str] | None = None) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.phases = ended
        self.unavailable = unavailable


@dataclass(frozen=True)
class Answer:
    """What a role answered, its phases, and what the parent saw of it: wall and CPU seconds."""

    response: dict[str, Any]
    phases: tuple[Phase, ...]
    wall: float
    cpu: float | None


@dataclass
class Servers:
    """The role servers of a session, one for each set of preloaded modules; a context manager.

    Attributes:
        limit: seconds that one phase of a role may take.
    """

    limit: float
    _running: dict[tuple[str, ...], Server] = field(default_factory=dict)

    def call(
        self, role: str, preload: tuple[str, ...], request: Mapping[str, Any], folder: Path, on_phase: OnPhase
    ) -> Answer:
        """Run a role in a fresh process, from a server that has imported `preload`.

        Raises:
            RoleFailed: it crashed, hung, was killed, or raised.
        """
        folder.mkdir(parents=True)
        (folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        on_phase(role, START)
        try:
            server = self.start(preload)
            server.wait()
            return _Call(server, role, folder, self.limit, on_phase).finish()
        except ServerGone as error:
            self._running.pop(preload, None)
            failure = Failure(role=role, phase=START, reason=error.reason, log=error.log)
            raise RoleFailed(failure, ()) from error

    def start(self, preload: tuple[str, ...]) -> Server:
        """Start a server; while it imports, others can be started, and whoever calls it waits."""
        if preload not in self._running:
            self._running[preload] = Server(preload, self.limit)
        return self._running[preload]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for server in self._running.values():
            server.stop()


class ServerGone(Exception):
    """A server ended or did not start; with the end of its log."""

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.log = log


def role_environment() -> dict[str, str]:
    """The environment of every role: offline, silent towards the net, one stated number of threads."""
    count = str(threads())
    return os.environ | {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "ORT_DISABLE_TELEMETRY": "1",
        "DO_NOT_TRACK": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "OMP_NUM_THREADS": count,
        "MKL_NUM_THREADS": count,
        # Threads that spin while they wait stall each other for a time slice whenever anything else runs.
        "OMP_WAIT_POLICY": "PASSIVE",
        # OpenBLAS starts its threads at import, and a process with threads cannot fork safely.
        "OPENBLAS_NUM_THREADS": "1",
        # The order in which devices are counted before a role starts; CUDA's own begins with the fastest.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


class Server:
    """One role server process."""

    def __init__(self, preload: tuple[str, ...], limit: float) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (lives with the server)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "assay.roles.server", *preload],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=role_environment(),
        )  # fmt: skip
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._process.stdout, selectors.EVENT_READ)
        self._buffer = b""
        self._ready = False
        self._preload = preload
        self._limit = limit
        self._deadline = time.monotonic() + limit

    def wait(self) -> None:
        """Until it has imported what it should.

        Raises:
            ServerGone: it could not, or not in time.
        """
        while not self._ready:
            self._ready = self.receive(_POLL) is not None
            if not self._ready and time.monotonic() > self._deadline:
                what = ", ".join(self._preload)
                raise ServerGone(f"imports of {what} took more than {self._limit:g} s", self.stop())

    def send(self, record: Mapping[str, str]) -> None:
        """Ask for a role."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(record).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._gone() from None

    def receive(self, timeout: float) -> dict[str, Any] | None:
        """The next answer, or None when none came in time."""
        assert self._process.stdout is not None
        if b"\n" not in self._buffer and self._selector.select(timeout):
            chunk = self._process.stdout.read()
            if not chunk:
                raise self._gone()
            self._buffer += chunk
        line, found, rest = self._buffer.partition(b"\n")
        if not found:
            return None
        self._buffer = rest
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _gone(self) -> ServerGone:
        log = self.stop()
        lines = [line.strip() for line in log.splitlines() if line.strip()]
        return ServerGone(lines[-1] if lines else f"the server ended with code {self._process.returncode}", log)

    def stop(self) -> str:
        """End the server; what it has forked dies with it. Returns the end of its log."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._selector.close()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()
        with self._log:
            self._log.seek(0)
            return self._log.read()[-LOG_TAIL:]


class _Call:
    """One role process, from the request to its end."""

    def __init__(self, server: Server, role: str, folder: Path, limit: float, on_phase: OnPhase) -> None:
        self._server = server
        self._role = role
        self._folder = folder
        self._limit = limit
        self._on_phase = on_phase
        self._started = time.monotonic()

    def finish(self) -> Answer:
        """Wait for the process; kill it when a phase passes its limit."""
        self._server.send({"role": self._role, "folder": str(self._folder)})
        pid, hung, phase, since = None, False, START, time.monotonic()
        while True:
            answer = self._server.receive(_POLL)
            progressed = self._progress()
            if progressed.current and progressed.current != phase:
                phase, since = progressed.current, time.monotonic()
                self._on_phase(self._role, phase)
            if answer and "pid" in answer:
                pid = answer["pid"]
            elif answer:
                return self._conclude(answer["status"], answer["cpu"], phase if hung else None)
            elif pid and not hung and time.monotonic() - since > self._limit:
                hung = True
                os.kill(pid, signal.SIGKILL)

    def _progress(self) -> phases.Progressed:
        return phases.read(self._folder / "phases.jsonl", self._role)

    def _conclude(self, status: int, cpu: float | None, hung_in: str | None) -> Answer:
        wall = time.monotonic() - self._started
        progressed = self._progress()
        response = self._folder / "response.json"
        if status == 0 and response.exists():
            return Answer(json.loads(response.read_text(encoding="utf-8")), progressed.ended, wall, cpu)
        raise self._failed(status, progressed, hung_in)

    def _failed(self, status: int, progressed: phases.Progressed, hung_in: str | None) -> RoleFailed:
        error_file = self._folder / ERROR_FILE
        error = json.loads(error_file.read_text(encoding="utf-8")) if error_file.exists() else {}
        name = signal.Signals(-status).name if status < 0 else None
        if hung_in:
            reason = f"hung: no end of this phase within {self._limit:g} s, killed"
        elif name:
            reason = f"killed by {name}"
        else:
            reason = error.get("reason") or f"ended with exit code {status} and no answer"
        log = self._folder / "log"
        failure = Failure(
            role=self._role,
            phase=hung_in or progressed.current or START,
            reason=reason,
            signal=name,
            exit_code=status if status >= 0 else None,
            log=log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:] if log.exists() else "",
        )
        return RoleFailed(failure, progressed.ended, error.get("unavailable"))
