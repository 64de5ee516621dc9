"""Eager torch on a device: the one implementation behind the `cpu` and `cuda` columns."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from assay.backends.base import ENCODERS, Artifact, Backend, Engine, Operation, PhaseClock, Tensors
from assay.devices import Device
from assay.schema import Precision

if TYPE_CHECKING:
    import torch

    from assay.checkpoints import Checkpoint
    from assay.families.module import JudgedModule

COMPUTE = frozenset({
    "aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm", "aten::convolution", "aten::linear", "aten::matmul",
    "aten::scaled_dot_product_attention", "aten::_scaled_dot_product_flash_attention_for_cpu",
    "aten::_scaled_dot_product_efficient_attention", "aten::_scaled_dot_product_flash_attention",
    "aten::_scaled_dot_product_cudnn_attention", "aten::_scaled_dot_product_attention_math",
})  # fmt: skip
"""The operators that hold nearly all arithmetic of a transformer."""

_OWN_THREAD = "assay: traced"
PROFILED = {"float": "f32", "double": "f64", "c10::BFloat16": "bf16", "c10::Half": "f16"}
"""Precisions, by the name that the profiler has for a tensor's type."""


class TorchEager(Backend):
    """Eager torch; a subclass says which device."""

    preload = ("torch", "transformers")
    libraries = ("libtorch", "libc10")
    packages = ("torch", "transformers", "tokenizers", "safetensors", "numpy")

    def build(self, checkpoint: Checkpoint, *, precision: Precision) -> Artifact:
        """Nothing is exported: the checkpoint is the artifact."""
        return Artifact(family=checkpoint.family, path=str(checkpoint.path), format="checkpoint")

    @abstractmethod
    def torch_device(self, device: Device) -> str:
        """The device's name in torch."""

    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> TorchEngine:
        """Load the checkpoint as transformers does in that precision, true IEEE arithmetic for f32 (no TF32)."""
        from pathlib import Path

        from assay import families
        from assay.machine import threads
        from assay.torch_threads import use_threads

        use_threads(threads())
        ieee()
        with phase("load"):
            module = families.load(artifact.family).load(Path(artifact.path), precision=precision)
            module = module.to(self.torch_device(device))
        return self.engine(module, self.torch_device(device))

    def engine(self, module: JudgedModule, device: str) -> TorchEngine:
        """What runs the loaded module."""
        return (TorchEngine if module.family.graph in ENCODERS else TorchDecoder)(module, device)


def ieee() -> None:
    """True float32 arithmetic on CUDA: cuDNN's TF32 is on by default."""
    import torch

    # The old switch goes first: with the new one alone torch holds the two for contradictory, and raises as soon as
    # anything reads the old one.
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.fp32_precision = "ieee"
    torch.backends.cuda.matmul.fp32_precision = "ieee"


class TorchEngine(Engine):
    """A module on a device."""

    def __init__(self, module: torch.nn.Module, device: str) -> None:
        import torch

        self._torch = torch
        self._module = module
        self._device = torch.device(device)
        parameter = next(module.parameters())
        self._dtype = parameter.dtype

    def _place(self, array: np.ndarray) -> torch.Tensor:
        tensor = self._torch.from_numpy(array)
        dtype = self._dtype if tensor.is_floating_point() else tensor.dtype
        return tensor.to(self._device, dtype)

    def run(self, inputs: Tensors) -> Tensors:
        """One forward pass; copying to the host waits for the device."""
        with self._torch.inference_mode():
            outputs = self._module(**{name: self._place(array) for name, array in inputs.items()})
            return {name: tensor.float().cpu().numpy() for name, tensor in outputs.items()}

    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        """One pass under a dispatch mode that sees every operator's device and type, in this thread alone.

        The profiler adds what other threads executed, whose device nobody tells, and the kernels of a CUDA device: an
        operator on it counts there only if it ran kernels at all.
        """
        torch = self._torch
        recorder = _recorder()
        with self._profiler() as profile, recorder, torch.profiler.record_function(_OWN_THREAD):
            outputs = self.run(inputs)
        if self._device.type == "cuda" and not any(
            event.device_type == torch.profiler.DeviceType.CUDA for event in profile.events()
        ):
            raise RuntimeError("torch says that it ran on CUDA, but the profiler saw no kernel on the device")
        return outputs, [*recorder.operations, *_other_threads(profile)]

    def _profiler(self) -> Any:
        """Torch's own, of the processor in all threads and of a CUDA device."""
        from torch._C._profiler import _ExperimentalConfig

        activity = self._torch.profiler.ProfilerActivity
        return self._torch.profiler.profile(
            activities=[activity.CPU, *([activity.CUDA] if self._device.type == "cuda" else [])],
            record_shapes=True, experimental_config=_ExperimentalConfig(profile_all_threads=True),
        )  # fmt: skip

    def device_time(self, inputs: Tensors) -> float | None:
        """By two events of a CUDA device's stream."""
        if self._device.type != "cuda":
            return None
        with self._torch.inference_mode(), self._torch.cuda.device(self._device):  # whose stream events are of
            placed = {name: self._place(array) for name, array in inputs.items()}
            return between_events(self._torch.cuda, lambda: self._module(**placed))

    def device_memory(self) -> int | None:
        """The allocator's peak on a CUDA device."""
        if self._device.type != "cuda":
            return None
        return int(self._torch.cuda.max_memory_allocated(self._device))


class TorchDecoder(TorchEngine):
    """A model that generates, with transformers' own cache."""

    def __init__(self, module: torch.nn.Module, device: str) -> None:
        from assay.families.steps import stepper

        super().__init__(module, device)
        self._stepper = stepper(module.family, module.model)
        self._target: str = module.family.target
        self._last = self._torch.zeros(1, dtype=self._torch.int64, device=self._device)
        self._cache: Any = None
        self._inputs: dict[str, torch.Tensor] = {}

    def prefill(self, inputs: Tensors) -> Tensors:
        """The prompt through encoder and decoder."""
        self.reset()
        with self._torch.inference_mode():
            self._inputs = {name: self._place(array) for name, array in inputs.items()}
            self._cache, logits = self._stepper.prefill(self._inputs, self._keep())
            return last_on_host(logits)

    def step(self, tokens: np.ndarray) -> Tensors:
        """The tokens through the decoder alone."""
        with self._torch.inference_mode():
            self._inputs[self._target] = self._place(tokens[:, None])
            if self._target == "input_ids":
                mask = self._inputs["attention_mask"]
                self._inputs["attention_mask"] = self._torch.nn.functional.pad(mask, (0, 1), value=1)
            return last_on_host(self._stepper.advance(self._cache, self._inputs, self._keep()))

    def _keep(self) -> torch.Tensor:
        """Which logits are wanted: the last."""
        return self._last + (self._inputs[self._target].shape[1] - 1)

    def reset(self) -> None:
        """Drop the cache."""
        self._cache, self._inputs = None, {}

    def cache_size(self) -> int:
        """As transformers' cache holds them."""
        from assay.families.steps import cache_size

        return cache_size(self._cache)


def last_on_host(logits: torch.Tensor) -> Tensors:
    """What a decoder answers: the logits of its last position, of (batch, kept, vocabulary)."""
    return {"logits": logits[:, -1].float().cpu().numpy()}


def between_events(cuda: Any, call: Callable[[], object]) -> float:
    """Seconds from an event that the stream reaches before a call's kernels to one that it reaches after them."""
    before, after = (cuda.Event(enable_timing=True) for _ in range(2))
    before.record()
    call()
    after.record()
    after.synchronize()
    return float(before.elapsed_time(after)) / 1e3  # torch tells milliseconds


def _other_threads(profile: Any) -> list[Operation]:
    """Matrix products, convolutions and attentions that the profiler saw in other threads than the traced one."""
    events = profile.profiler.kineto_results.events()
    (own,) = {event.start_thread_id() for event in events if event.name() == _OWN_THREAD}
    return [
        Operation(
            name=event.name(), kernel=f"{event.name()} in another thread", device="a device that was not watched",
            precision=PROFILED.get(event.dtypes()[0]), compute=True, work=float(math.prod(event.shapes()[0])),
        )
        for event in events
        if event.name() in COMPUTE and event.start_thread_id() != own
    ]  # fmt: skip


def _recorder() -> Any:
    """A dispatch mode that writes down every operator with a floating-point result."""
    import torch
    from torch.utils._python_dispatch import TorchDispatchMode

    names = {torch.float32: "f32", torch.bfloat16: "bf16", torch.float16: "f16", torch.float64: "f64"}

    class Recorder(TorchDispatchMode):
        def __init__(self) -> None:
            super().__init__()
            self.operations: list[Operation] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **(kwargs or {}))
            first = result[0] if isinstance(result, tuple | list) and result else result
            if isinstance(first, torch.Tensor):
                name = func._schema.name
                # A view computes nothing, and a copy between devices is transport, not work.
                if not func.is_view and name not in ("aten::_to_copy", "aten::copy_", "aten::detach"):
                    self.operations.append(Operation(
                        name=name, kernel=str(func), device=str(first.device), precision=names.get(first.dtype),
                        compute=name in COMPUTE, work=float(first.numel()),
                    ))  # fmt: skip
            return result

    return Recorder()
