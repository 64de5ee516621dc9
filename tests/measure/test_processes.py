"""Processor time, by real processes and threads."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from assay.measure.processes import Usage

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
COMPUTE = "import time\nwhile time.process_time() < {seconds}: pass\n"


def spin(seconds: float) -> None:
    """Compute for so much processor time."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def watched(call: object) -> Usage:
    usage = Usage()
    with usage.watched(), usage.computing():
        call()  # type: ignore[operator]
    return usage


def test_computing_and_sleeping_are_told_apart() -> None:
    assert watched(lambda: spin(0.05)).cpu >= 0.05
    assert watched(lambda: time.sleep(0.1)).cpu < 0.05


@linux
def test_a_child_that_computed_and_ended_is_counted() -> None:
    def call() -> None:
        subprocess.run([sys.executable, "-S", "-c", COMPUTE.format(seconds=0.2)], check=True)

    assert watched(call).helpers >= 0.15


@linux
def test_a_child_of_a_child_that_computes_still_is_counted() -> None:
    script = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-S', '-c', {COMPUTE.format(seconds=60)!r}])\n"
        "print(flush=True)\nsys.stdin.read()\nchild.kill()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout and process.stdin
        process.stdout.readline()
        usage = watched(lambda: time.sleep(0.5))
        process.stdin.close()
        process.wait()
    assert usage.helpers > 0.02  # as much of half a second as a busy machine leaves it


@linux
def test_waiting_for_a_core_is_counted_and_sleeping_is_not() -> None:
    usage = watched(lambda: time.sleep(0.1))
    assert usage.waited is not None and usage.waited < 0.05


def test_usages_add_up_and_what_is_not_known_stays_so() -> None:
    one, other = Usage(1.0, 2.0, 3.0, 4.0), Usage(1.0, 1.0, None, 1.0)
    assert one + one == Usage(2.0, 4.0, 6.0, 8.0)
    assert (one + other).waited is None
