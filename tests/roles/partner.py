"""A role for tests, known to any server that has imported this: it waits for another one, and then may misbehave."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

ROLE = "partner"
sys.modules[f"assay.roles.{ROLE}"] = sys.modules[__name__]
PATIENCE = 20.0


def perform(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Tell that this role has begun, and answer when the other one has, too."""
    (folder / "begun").touch()
    deadline = time.monotonic() + PATIENCE
    while not (Path(request["other"]) / "begun").exists():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{request['other']} did not begin")
        time.sleep(0.01)
    if request["then"] == "look for a module":
        return {"imported": request["module"] in sys.modules}
    if request["then"] == "tell how threads wait":
        return {"spins": os.environ.get("GOMP_SPINCOUNT"), "server": os.getppid()}
    if request["then"] == "kill the server":
        os.kill(os.getppid(), signal.SIGKILL)
    if request["then"] == "leave a process behind":
        return {"left": leave_behind()}
    if request["then"] != "answer":
        time.sleep(PATIENCE)
    return {"met": request["other"]}


def leave_behind() -> int:
    """Start a process that is no child of this one any more, and in a session of its own."""
    readable, writable = os.pipe()
    if os.fork() == 0:
        os.setsid()
        pid = os.fork()
        if pid == 0:
            time.sleep(PATIENCE)
        else:
            os.write(writable, str(pid).encode())
        os._exit(0)
    return int(os.read(readable, 32))
