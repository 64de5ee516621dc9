"""What a backend is: a column of the matrix, with its own environment.

A backend knows nothing of families beyond what `Family` says of inputs and outputs. Heavy imports
happen inside `build` (builder process) and `open` (runner process) alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from assay.devices import Device
from assay.errors import Unavailable
from assay.schema import Precision

if TYPE_CHECKING:
    from assay.checkpoints import Checkpoint

ENCODERS = ("encoder", "dual-encoder")
"""Kinds of graph that run in one pass; the others decode."""

Tensors = Mapping[str, np.ndarray]
PhaseClock = Callable[[str], AbstractContextManager[None]]
"""`with phase("compile"):` times a phase and tells the parent process what is going on."""


@dataclass(frozen=True)
class Artifact:
    """What a runner opens.

    Attributes:
        family: the family's id.
        path: the checkpoint's folder, or the folder of the exported model.
        format: `checkpoint` or `onnx`; with weights in int8, `openvino` or `onnxruntime`.
        export_seconds: how long the export took when it was made; None where nothing is exported.
    """

    family: str
    path: str
    format: str
    export_seconds: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)


@dataclass(frozen=True)
class Operation:
    """One executed operation of a trace.

    Attributes:
        name: the operator's type.
        kernel: the kernel, primitive or provider that executed it, as the runtime's trace says.
        device: where, in the runtime's own words, lower case: `cpu`, `cuda:0`.
        precision: `f32`, `bf16`, ... of its result; None for integers and booleans.
        compute: a matrix product, convolution or attention, where nearly all arithmetic is.
        work: its share is judged by this: seconds where the trace has them, else elements computed.
        weights: the type in which it reads its weights; None where it has none, or the trace does not tell.
    """

    name: str
    kernel: str
    device: str
    precision: str | None
    compute: bool
    work: float
    weights: str | None = None


class Engine(ABC):
    """A loaded model: a context manager that runs forward passes.

    The next call may overwrite what one has answered: whoever keeps outputs copies them.
    """

    @abstractmethod
    def run(self, inputs: Tensors) -> Tensors:
        """One forward pass; every output is on the host, as a numpy array, when it returns."""

    def prefill(self, inputs: Tensors) -> Tensors:
        """A prompt in, `logits` of its last position out, (batch, vocabulary). Decoders alone can."""
        raise NotImplementedError

    def step(self, tokens: np.ndarray) -> Tensors:
        """One token for each sequence in, int64 (batch,), the next `logits` out; the engine keeps the cache."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget the sequence: the next call is a new prefill."""
        raise NotImplementedError

    def cache_size(self) -> int:
        """Bytes of the keys and values that the cache of the present sequence holds and that grow with it."""
        raise NotImplementedError

    @abstractmethod
    def trace(self, inputs: Tensors) -> tuple[Tensors, list[Operation]]:
        """One forward pass, and what it executed."""

    def device_time(self, inputs: Tensors) -> float | None:
        """Seconds from a pass's first kernel to its last by the device's own clock; None where it has none."""
        return None

    def device_memory(self) -> int | None:
        """Peak bytes allocated on the device; None where there is no device memory of its own."""
        return None

    def close(self) -> None:  # noqa: B027 (most engines hold nothing that needs releasing)
        """Release what the engine holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class Stages(ABC):
    """What lies between torch and a runtime, for the diagnosis of a cell."""

    @abstractmethod
    def watched(self, folder: Path) -> Artifact:
        """The artifact, written into an empty folder so that an engine answers what leaves the modules too."""

    @abstractmethod
    def engines(self, watched: Artifact) -> Sequence[tuple[str, Callable[[], Engine]]]:
        """The stages in order, by name, each with what opens it; their engines answer what leaves the modules too."""

    @abstractmethod
    def layers(
        self, outputs: Tensors, exact: Mapping[tuple[str, int], np.ndarray]
    ) -> Mapping[tuple[str, int], np.ndarray]:
        """Which of an engine's outputs are a module's, by its name and the number of the call, as `exact` has them."""


class Backend(ABC):
    """One column of the matrix.

    Class attributes:
        name: the column.
        environment: its file in `envs/`, without the suffix.
        preload: what the runner's server imports ahead; one that names torch shares the builder's server.
        builder_preload: what the builder's server imports ahead, beside torch and transformers.
        export_preload: what it imports besides as soon as something has to be exported.
        libraries: file-name prefixes of the compute libraries that may be mapped in its runner.
        packages: the distributions whose versions a report records.
        builder_memory, runner_memory: what these roles need at their peak, bytes for each parameter; 4 are the weights
            in float32. A figure says where it was measured; `needs` says how.
        exports: copies of the weights, checkpoint's and twin's, that building leaves in the cache.
        quantiser: the module that makes its artifacts at int8, and reads them for the judge
            (`assay.backends.quantised.Quantiser`); None where it has no int8.
    """

    name: ClassVar[str]
    environment: ClassVar[str]
    preload: ClassVar[tuple[str, ...]]
    builder_preload: ClassVar[tuple[str, ...]] = ()
    export_preload: ClassVar[tuple[str, ...]] = ()
    libraries: ClassVar[tuple[str, ...]]
    packages: ClassVar[tuple[str, ...]]
    builder_memory: ClassVar[float] = 4
    runner_memory: ClassVar[float] = 4
    exports: ClassVar[int] = 0
    quantiser: ClassVar[str | None] = None

    @abstractmethod
    def devices(self) -> Sequence[Device]:
        """The devices it could use here; cheap, without heavy imports.

        Raises:
            Unavailable: none, with what was looked for.
        """

    @abstractmethod
    def precisions(self, device: Device) -> Sequence[Precision]:
        """What the device computes in, as cheaply as `devices`."""

    def lacks(self, device: Device, precision: Precision) -> Unavailable:
        """Why the device does not compute in a precision that is not among `precisions`, and what was looked for."""
        able = ", ".join(self.precisions(device))
        return Unavailable(f"{self.name} computes in {able} on {device.name}, not in {precision}")

    @abstractmethod
    def build(self, checkpoint: Checkpoint, *, precision: Precision) -> Artifact:
        """In the builder: make, or find in the cache, what the runner opens."""

    def build_twin(self, checkpoint: Checkpoint, twin: Checkpoint, *, precision: Precision) -> Artifact:
        """In the builder and the perturber: the same for the checkpoint's architecture with other weights."""
        return self.build(twin, precision=precision)

    def stages(self, checkpoint: Path, artifact: Artifact) -> Stages | None:
        """For a diagnosis: how the artifact was made of a checkpoint's folder; None where it is opened as it is."""
        return None

    @abstractmethod
    def open(self, artifact: Artifact, *, device: Device, precision: Precision, phase: PhaseClock) -> Engine:
        """In the runner: load (`phase("load")`) and compile (`phase("compile")`) the artifact."""
