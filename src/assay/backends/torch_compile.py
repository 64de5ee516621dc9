"""Torch through `torch.compile`: the one implementation behind the `cpu-compile` and `cuda-compile` columns.

A model never falls back to eager code without a word. Its whole forward is compiled as one graph, so that whatever
dynamo cannot follow is an error, and so is a model that would be compiled again and again; and the trace tells what ran
inside of compiled graphs from what ran beside them.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import sys
import sysconfig
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.backends.base import ENCODERS, Artifact, Engine, Operation, PhaseClock, Tensors
from assay.backends.torch_eager import COMPUTE, PROFILED, TorchDecoder, TorchEager, TorchEngine
from assay.devices import Device
from assay.errors import Unavailable
from assay.schema import Precision

if TYPE_CHECKING:
    import torch

    from assay.families.base import Config, Family
    from assay.families.module import JudgedModule

COMPILED = {
    "fullgraph": True,  # no part of a forward is left to eager code, and no limit of recompiling is passed in silence
    "dynamic": True,  # one graph for all batches above 1 and for all lengths
    # C++ kernels show in a profile by name; while nobody profiles, that is a look at a variable for each.
    "options": {"cpp.enable_kernel_profile": True},
}
"""How `torch.compile` is called."""
VARIANTS = 32
"""Graphs of one function, for batches of 1 and above, a first step and later ones; one more is an error."""
STEPS = 2
"""The first after a prompt finds a cache of its own length, the second one that has grown by a token."""
EAGER = "in eager code"

_GRAPH = "## Call CompiledFxGraph "
_KERNEL = re.compile(r"cpp_pybinding\(\[([^]]*)\], r'''(.*?)'''\)", re.DOTALL)
_NAME = re.compile(r'RecordFunctionHandle \w+\("(\w+)"')
_TYPES = {"double": "f64", "float": "f32", "at::Half": "f16", "at::BFloat16": "bf16"}
_NARROW = ("bf16", "f16", "f32", "f64")
_TRANSPORT = frozenset({
    "aten::to", "aten::_to_copy", "aten::copy_", "aten::detach", "aten::lift_fresh", "aten::resolve_conj",
    "aten::resolve_neg", "inductor::_reinterpret_tensor",
})  # fmt: skip
"""What moves tensors and computes nothing."""


class TorchCompile(TorchEager):
    """Compiled torch; a subclass says which device."""

    builder_preload = ("torch._dynamo", "torch._inductor.compile_fx")

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> TorchEngine:
        """Load the checkpoint as the eager columns do, and make every kind of call once, which compiles it."""
        from assay import families

        family = families.load(artifact.family)
        config = family.describe(Path(artifact.path))
        prepare()
        engine = super().open(artifact, device=device, precision=precision, phase=phase)
        with phase("compile"):
            rehearse(engine, family, config)
        return engine

    def engine(self, module: JudgedModule, device: str) -> TorchEngine:
        """What compiles and runs the loaded module."""
        return (CompiledEngine if module.family.graph in ENCODERS else CompiledDecoder)(module, device)


def require_toolchain() -> None:
    """Look for what inductor compiles with.

    Raises:
        Unavailable: there is no C++ compiler, or Python's headers are not installed.
    """
    name = os.environ.get("CXX") or {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++")
    header = Path(sysconfig.get_path("include"), "Python.h")
    found = {f"C++ compiler {name} ($CXX)": shutil.which(name), f"Python's header {header}": header.is_file()}
    if not all(found.values()):
        missing = " and no ".join(what for what, there in found.items() if not there)
        looked_for = [f"{what}: {'found' if there else 'not found'}" for what, there in found.items()]
        raise Unavailable(f"torch.compile has no {missing}", looked_for)


def kept() -> Path:
    """The folder of the cache in which inductor finds, by content, what this version of torch has compiled before."""
    import torch

    from assay import cache

    made_by = f"torch {torch.__version__}"

    def begin(folder: Path) -> None:
        (folder / cache.MARKERS["compiled"]).write_text(json.dumps({"by": made_by}), encoding="utf-8")

    name = f"torch-{hashlib.sha256(made_by.encode()).hexdigest()[:16]}"
    return cache.entry("compiled", name, begin, lambda _: True)


def prepare() -> None:
    """Tell dynamo and inductor what holds for the whole process."""
    import torch._dynamo
    from torch._inductor import codecache
    from torch._inductor import config as inductor

    torch._dynamo.config.recompile_limit = VARIANTS
    inductor.compile_threads = 1  # workers would be processes beside the runner, which are held against it
    folder = kept()
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    # Headers would lie in the system's temporary folder, wherever the kernels are.
    codecache._HEADER_DIR = str(folder / "headers")
    codecache._HEADER_LOCK_DIR = str(folder / "headers" / "locks")


def rehearse(engine: Engine, family: Family, config: Config) -> None:
    """Make every kind of call, each with one row and with several, for which torch compiles other graphs."""
    from assay.decoding import decode
    from assay.families.base import accepted
    from assay.families.generation import GeneratingFamily

    rng = np.random.default_rng(0)
    for workload in (family.measured, family.sample):
        engine.run(accepted(config, family.inputs(config, workload, rng)))
    if isinstance(family, GeneratingFamily):
        for workload in (family.decoded, family.forced):
            decode(engine, family.prompt(config, workload, rng), STEPS)


class CompiledEngine(TorchEngine):
    """A module whose forward is compiled at its first call."""

    def __init__(self, module: torch.nn.Module, device: str) -> None:
        super().__init__(module, device)
        module.compile(**COMPILED)

    def _place(self, array: np.ndarray) -> torch.Tensor:
        # Graphs are made for strides too: those of a slice, or of an axis of one, would be another graph's.
        return super()._place(np.ascontiguousarray(array).reshape(-1).reshape(array.shape))

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        """One pass under the profiler: a dispatch mode, as eager code has it, would switch compiled graphs off."""
        with self._profiler() as profile:
            outputs = self.run(inputs)
        host = self._torch.profiler.DeviceType.CPU  # a device's own events are those that the host has launched
        return outputs, executed([event for event in profile.events() if event.device_type == host], kernels())


class CompiledDecoder(CompiledEngine, TorchDecoder):
    """A model that generates: what its steps call is compiled too."""

    def __init__(self, module: JudgedModule, device: str) -> None:
        super().__init__(module, device)
        module.model.compile(**COMPILED)
        if module.family.graph != "decoder":
            module.model.get_encoder().compile(**COMPILED)


def kernels() -> dict[str, str | None]:
    """The C++ kernels that inductor has loaded in this process, by name: the narrowest precision of their arguments.

    A profile tells their names alone; their types stand in the code that inductor wrote.
    """
    from torch._inductor.codecache import PyCodeCache

    found: dict[str, set[str]] = {}
    for module in PyCodeCache.modules:
        for arguments, code in _KERNEL.findall(Path(str(module.__file__)).read_text(encoding="utf-8")):
            types = {_TYPES[name] for name in re.findall(r"[\w:]+(?=\*)", arguments) if name in _TYPES}
            for name in _NAME.findall(code):
                found.setdefault(name, set()).update(types)
    return {name: _narrowest(types) for name, types in found.items()}


def executed(events: Iterable[Any], kernels: Mapping[str, str | None]) -> list[Operation]:
    """What a profile saw: kernels of compiled graphs, operators that these call, and whatever ran beside them.

    Args:
        events: the profiler's, of all threads of the host; each has the kernels that it launched on a CUDA device.
        kernels: precision by name of inductor's C++ kernels.
    """

    def written(event: Any) -> bool:
        return event.name in kernels or event.name.startswith("triton_")

    def outermost(waiting: list[tuple[Any, bool]]) -> Iterator[tuple[Any, bool]]:
        """Kernels and operators, without what they are made of, and whether a compiled graph called them."""
        while waiting:
            event, graph = waiting.pop()
            if "::" in event.name or written(event):
                yield event, graph
            else:
                inside = graph or event.name.startswith(_GRAPH)
                waiting.extend((child, inside) for child in event.cpu_children)

    found = list(outermost([(event, False) for event in events if event.cpu_parent is None]))
    compiled = any(written(event) for event, _ in found)
    return [_operation(event, kernels, graph and compiled) for event, graph in found if event.name not in _TRANSPORT]


def _operation(event: Any, kernels: Mapping[str, str | None], graph: bool) -> Operation:
    launched = list(_launched(event))
    device = ", ".join(sorted({f"cuda:{kernel.device}" for kernel in launched})) or "cpu"
    types = {PROFILED[name] for name in event.input_dtypes if name in PROFILED}
    return Operation(
        name=event.name,
        kernel=event.name,
        device=device if graph else f"{device}, {EAGER}",
        precision=kernels[event.name] if event.name in kernels else _narrowest(types),
        compute=event.name in COMPUTE,
        work=sum(kernel.duration for kernel in launched) or event.time_range.elapsed_us(),
    )


def _launched(event: Any) -> Iterator[Any]:
    """The kernels on a CUDA device that the event, or what it is made of, has launched."""
    yield from event.kernels
    for child in event.cpu_children:
        yield from _launched(child)


def _narrowest(types: set[str]) -> str | None:
    return min(types, key=_NARROW.index, default=None)
