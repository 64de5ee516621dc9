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
from collections.abc import Callable, Collection, Mapping, Sequence
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
SPINS = 10_000
"""How often a thread of torch's pool (GNU OpenMP's) looks for work before it sleeps, some 0.1 ms, where nothing runs
beside it: between two operators of a call it stays awake. To wake it for each makes calls of a millisecond three times
as long. Longer is no faster, and would reach into what comes after a call."""
LOG_TAIL = 4000
"""Characters of a failed role's log that the report keeps."""
_POLL = 0.1

OnPhase = Callable[[str, str], None]


class RoleFailed(Exception):
    """A role did not answer; `failure` says where and how, `unavailable` what hardware it missed."""

    def __init__(
        self, failure: Failure, ended: tuple[Phase, ...], wall: float, unavailable: Sequence[str] | None = None
    ) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.phases = ended
        self.wall = wall
        self.unavailable = unavailable


@dataclass(frozen=True)
class Request:
    """One role of one cell.

    Attributes:
        preload: what its server has imported.
        content: what the role is told, JSON.
        folder: the role's own, new.
        alone: nothing may run beside it: it is timed, or takes the whole machine.
        imports: what its server imports now, if it has not yet.
        spins: whether threads of its server's processes spin for a moment before they sleep.
        taken: seconds that its cell has taken so far; one that took long will.
    """

    role: str
    preload: tuple[str, ...]
    content: Mapping[str, Any]
    folder: Path
    alone: bool
    on_phase: OnPhase = field(default=lambda *_: None)
    imports: tuple[str, ...] = ()
    spins: bool = False
    taken: float = 0.0


@dataclass(frozen=True)
class Answer:
    """What a role answered, its phases, and what the parent saw of it: wall and CPU seconds."""

    response: dict[str, Any]
    phases: tuple[Phase, ...]
    wall: float
    cpu: float


@dataclass
class Servers:
    """The role servers of a session, one for each set of preloaded modules and way to wait; a context manager.

    Attributes:
        limit: seconds that one phase of a role may take.
    """

    limit: float
    _running: dict[tuple[tuple[str, ...], bool], Server] = field(default_factory=dict)

    def call(self, request: Request) -> Call:
        """Run a role in a fresh process, from a server that has imported what it needs, and do not wait for it."""
        request.folder.mkdir(parents=True)
        (request.folder / "request.json").write_text(json.dumps(request.content), encoding="utf-8")
        request.on_phase(request.role, START)
        server = self.start(request.preload, spins=request.spins)
        with suppress(ServerGone):  # the call will say so
            server.wait()
            server.send({"role": request.role, "folder": str(request.folder), "imports": request.imports})
        return Call(server, request, self.limit)

    def start(self, preload: tuple[str, ...], *, spins: bool = False) -> Server:
        """Start a server; while it imports, others can be started, and whoever calls it waits."""
        key = preload, spins
        if key not in self._running or self._running[key].gone:
            self._running[key] = Server(preload, self.limit, spins=spins)
        return self._running[key]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for server in self._running.values():
            if not server.gone:
                server.stop()


class ServerGone(Exception):
    """A server ended or did not start; with the end of its log."""

    def __init__(self, reason: str, log: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.log = log


def role_environment(*, spins: bool = False) -> dict[str, str]:
    """The environment of every role: offline, silent towards the net, one stated number of threads.

    Args:
        spins: whether threads spin for a moment before they sleep. Libraries read that once, when they are loaded.
    """
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
        **({"GOMP_SPINCOUNT": str(SPINS)} if spins else {}),
        # OpenBLAS starts its threads at import, and a process with threads cannot fork safely.
        "OPENBLAS_NUM_THREADS": "1",
        # The order in which devices are counted before a role starts; CUDA's own begins with the fastest.
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


class Server:
    """One role server process; `gone` says why it is no more."""

    def __init__(self, preload: tuple[str, ...], limit: float, *, spins: bool) -> None:
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (lives with the server)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "assay.roles.server", *preload],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._log, env=role_environment(spins=spins),
        )  # fmt: skip
        assert self._process.stdout is not None
        self.output = self._process.stdout
        os.set_blocking(self.output.fileno(), False)
        self._unread = b""
        self._said: dict[str, list[dict[str, Any]]] = {}
        self._ready = False
        self.gone: ServerGone | None = None
        self._preload = preload
        self._limit = limit
        self._deadline = time.monotonic() + limit

    def wait(self) -> None:
        """Until it has imported what it should.

        Raises:
            ServerGone: it could not, or not in time.
        """
        with selectors.DefaultSelector() as selector:
            selector.register(self.output, selectors.EVENT_READ)
            while not self._is_ready():
                if time.monotonic() > self._deadline:
                    what = ", ".join(self._preload)
                    raise self._end(f"imports of {what} took more than {self._limit:g} s")
                selector.select(_POLL)

    def _is_ready(self) -> bool:
        self.listen()
        if self.gone:
            raise self.gone
        return self._ready

    def send(self, record: Mapping[str, object]) -> None:
        """Ask for a role.

        Raises:
            ServerGone: it has ended.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(record).encode() + b"\n")
            self._process.stdin.flush()
        except (BrokenPipeError, ValueError):  # a pipe that `stop` has closed is a ValueError
            raise self._end() from None

    def said(self, folder: Path) -> list[dict[str, Any]]:
        """What it has said of the role in this folder since it was last asked."""
        self.listen()
        return self._said.pop(str(folder), [])

    def listen(self) -> None:
        """Take in what it has said, without waiting."""
        if self.gone:
            return
        chunk = self.output.read()
        if chunk == b"":
            self._end()
        *lines, self._unread = (self._unread + (chunk or b"")).split(b"\n")
        for line in lines:
            answer: dict[str, Any] = json.loads(line)
            if "ready" in answer:
                self._ready = True
            else:
                self._said.setdefault(answer["folder"], []).append(answer)

    def _end(self, reason: str | None = None) -> ServerGone:
        if not self.gone:
            log = self.stop()
            lines = [line.strip() for line in log.splitlines() if line.strip()]
            last = lines[-1] if lines else f"the server ended with code {self._process.returncode}"
            self.gone = ServerGone(reason or last, log)
        return self.gone

    def stop(self) -> str:
        """End the server; what it has forked dies with it. Returns the end of its log."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                with suppress(BrokenPipeError):
                    pipe.close()
        with self._log:
            self._log.seek(0)
            return self._log.read()[-LOG_TAIL:]


class Call:
    """One role process, from the request to its end."""

    def __init__(self, server: Server, request: Request, limit: float) -> None:
        self.server = server
        self._request = request
        self._limit = limit
        self._started = self._since = time.monotonic()
        self._phase = START
        self._pid: int | None = None
        self._hung = False

    def answer(self) -> Answer | None:
        """The role's answer; None as long as it runs. A process whose phase passes its limit is killed.

        Raises:
            RoleFailed: it crashed, hung, was killed, or raised.
        """
        said = self.server.said(self._request.folder)
        progressed = self._progress()
        if progressed.current and progressed.current != self._phase:
            self._phase, self._since = progressed.current, time.monotonic()
            self._request.on_phase(self._request.role, self._phase)
        for answer in said:
            if "pid" in answer:
                self._pid = answer["pid"]
            else:
                return self._conclude(answer["status"], answer["cpu"])
        if gone := self.server.gone:
            failure = Failure(role=self._request.role, phase=self._phase, reason=gone.reason, log=gone.log)
            raise RoleFailed(failure, progressed.ended, self._wall()) from gone
        if self._pid and not self._hung and time.monotonic() - self._since > self._limit:
            self._hung = True
            os.kill(self._pid, signal.SIGKILL)
        return None

    def finish(self) -> Answer:
        """Wait for the answer."""
        while not (answer := self.answer()):
            wait([self])
        return answer

    def _wall(self) -> float:
        return time.monotonic() - self._started

    def _progress(self) -> phases.Progressed:
        return phases.read(self._request.folder / "phases.jsonl", self._request.role)

    def _conclude(self, status: int, cpu: float) -> Answer:
        wall = self._wall()
        progressed = self._progress()
        response = self._request.folder / "response.json"
        if status == 0 and response.exists():
            return Answer(json.loads(response.read_text(encoding="utf-8")), progressed.ended, wall, cpu)
        raise self._failed(status, progressed)

    def _failed(self, status: int, progressed: phases.Progressed) -> RoleFailed:
        folder = self._request.folder
        error_file = folder / ERROR_FILE
        error = json.loads(error_file.read_text(encoding="utf-8")) if error_file.exists() else {}
        name = signal.Signals(-status).name if status < 0 else None
        if self._hung:
            reason = f"hung: no end of this phase within {self._limit:g} s, killed"
        elif name:
            reason = f"killed by {name}"
        else:
            reason = error.get("reason") or f"ended with exit code {status} and no answer"
        log = folder / "log"
        failure = Failure(
            role=self._request.role,
            phase=self._phase if self._hung else progressed.current or START,
            reason=reason,
            signal=name,
            exit_code=status if status >= 0 else None,
            log=log.read_text(encoding="utf-8", errors="replace")[-LOG_TAIL:] if log.exists() else "",
        )
        return RoleFailed(failure, progressed.ended, self._wall(), error.get("unavailable"))


def wait(calls: Collection[Call]) -> None:
    """Until a server of these calls has something to say, or it is time to look after them."""
    servers = {call.server for call in calls}
    if any(server.gone for server in servers):
        return
    with selectors.DefaultSelector() as selector:
        for server in servers:
            selector.register(server.output, selectors.EVENT_READ)
        selector.select(_POLL)
