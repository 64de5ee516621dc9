"""How long a call of eager torch takes by how its threads wait, alone and beside a second process that does the same.

    python -m tests.time_waiting [SIZE]

A forward pass of BERT with weights of its own, `tiny` or `base`: the median of each process.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from statistics import median

from assay import families
from assay.roles.process import role_environment

COUNT = {"tiny": 400, "base": 20}
LENGTH = 16
OWN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""What torch's own setting is without."""


def seconds(size: str) -> float:
    """The median of the later calls, each after a rest in which a next input would be made."""
    import torch
    import transformers

    from assay.machine import threads

    torch.set_num_threads(threads())
    config = families.load("bert").config(size)
    model = transformers.AutoModel.from_config(config).eval()
    ids = torch.randint(0, config.vocab_size, (1, LENGTH))
    samples = []
    with torch.inference_mode():
        for _ in range(COUNT[size]):
            started = time.perf_counter()
            model(ids)
            samples.append(time.perf_counter() - started)
            time.sleep(3e-4)
    return median(samples[len(samples) // 4 :])


def main(size: str) -> None:
    """Print a line for each way to wait."""
    ways = {
        "sleep at once": role_environment(),
        "spin as what is timed": role_environment(spins=True),
        "torch's own": {name: value for name, value in os.environ.items() if name not in OWN},
    }
    command = [sys.executable, "-m", "tests.time_waiting", "--seconds", size]
    for name, environ in ways.items():
        for beside in (1, 2):
            processes = [
                subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True) for _ in range(beside)
            ]
            found = ", ".join(f"{1e3 * float(process.communicate()[0]):.3g} ms" for process in processes)
            print(f"{size}, threads {name}, {beside} at once: {found}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--seconds"]:
        print(seconds(sys.argv[2]))
    else:
        main(*(sys.argv[1:] or ["tiny"]))
