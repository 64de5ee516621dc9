"""What servers import ahead: no role should import in a phase that is timed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from assay import checkpoints, families
from assay.cell import preloads
from assay.plan import make_plan

FAMILIES = ("bert", "clap", "t5")
IMPORTED = """
import importlib, json, sys
from pathlib import Path
preload, configs = json.loads(sys.argv[1]), json.loads(sys.argv[2])
for module in preload:
    importlib.import_module(module)
from assay import backends, families
from assay.challenge import Challenges
before = set(sys.modules)
backends.load("onnxruntime")
for name, config in configs.items():
    challenges = Challenges(families.load(name), json.loads(Path(config).read_text()), "5eed" * 8)
    challenges.timed(0), challenges.shapes(), challenges.alone()
print(json.dumps(sorted(set(sys.modules) - before)))
"""


def imported(preload: tuple[str, ...], folder: Path) -> list[str]:
    """What is imported where inputs are made, after the preload."""
    configs = {}
    for name in FAMILIES:
        config = families.load(name).describe(checkpoints.local(name, "tiny").path)
        (folder / name).write_text(json.dumps(config), encoding="utf-8")
        configs[name] = str(folder / name)
    command = [sys.executable, "-c", IMPORTED, json.dumps(preload), json.dumps(configs)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    found: list[str] = json.loads(done.stdout)
    return found


def test_a_runner_imports_nothing_more_when_it_makes_its_inputs(tmp_path: Path) -> None:
    plan = make_plan(backend="onnxruntime", families=FAMILIES, precisions=("f32",))
    _, runner = preloads(plan)
    assert not {"torch", "transformers"} & set(runner)
    assert imported(runner, tmp_path) == []
    forgotten = tuple(name for name in runner if name != "numpy.random")
    assert "numpy.random" in imported(forgotten, tmp_path)
