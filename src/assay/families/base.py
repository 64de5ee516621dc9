"""What a family is: a row of the matrix, a task plus an allow-list of architectures.

A family knows its configuration, inputs, judged outputs, preprocessing and metrics. It knows
nothing of backends. transformers and torch are imported only inside the methods that need them,
so that a runner of another runtime can make a family's challenges with numpy alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from assay.errors import UsageError
from assay.schema import Metric, Workload

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedConfig, PreTrainedModel

Tensors = Mapping[str, np.ndarray]
Config = Mapping[str, Any]
"""A checkpoint's `config.json`, parsed."""

Kind = Literal["text", "vision", "audio", "embeddings", "generation"]
Graph = Literal["encoder", "dual-encoder", "decoder", "encoder-decoder"]


class Family(ABC):
    """One row of the matrix.

    Class attributes:
        id, title: the row's id and heading.
        kind: which table of metrics it belongs to.
        graph: the kind of graph, which is all that a backend may know of it.
        auto_class: the transformers auto class that loads its checkpoints.
        model_options: keyword arguments of `from_pretrained` (a head that is not judged left out).
        architectures: the `architectures` entries of `config.json` that this row accepts.
        modules: modelling modules that the role servers import ahead.
        outputs: names of the judged outputs.
        dynamic: for each input, which axes vary, by name: `{"input_ids": {0: "batch", 1: "length"}}`.
        sample: the shape that an export is traced with; no challenge has the same batch or length.
        measured: the batch-1 workload that the columns compare.
        challenges: the workloads that are judged.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[Kind]
    graph: ClassVar[Graph]
    auto_class: ClassVar[str]
    model_options: ClassVar[Mapping[str, Any]] = {}
    architectures: ClassVar[tuple[str, ...]]
    modules: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    dynamic: ClassVar[Mapping[str, Mapping[int, str]]]
    sample: ClassVar[Workload]
    measured: ClassVar[Workload]
    challenges: ClassVar[tuple[Workload, ...]]

    @abstractmethod
    def config(self, size: str) -> PreTrainedConfig:
        """The configuration of the local test model of this size (`tiny`)."""

    @abstractmethod
    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """Write the tokenizer or processor files that belong to a local test model."""

    @abstractmethod
    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Fresh tensors of this workload's shape, from numpy alone. Every key of `dynamic` is present."""

    @abstractmethod
    def forward(self, model: PreTrainedModel, inputs: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The judged outputs of one forward pass, in the order of `outputs`."""

    def masks(self, inputs: Tensors) -> dict[str, np.ndarray]:
        """For an output whose leading axes hold padding: which positions mean something (bool).

        The mask has the output's shape without its last axis; an output that is not named counts
        in full.
        """
        return {}

    @abstractmethod
    def preprocessing(self, directory: Path, config: Config, rng: np.random.Generator) -> Callable[[], object]:
        """A call that turns one raw sample (text, image, sound, video) into tensors, ready to be timed.

        The raw sample is drawn and the processor is loaded before the call is returned.
        """

    @abstractmethod
    def metrics(self, config: Config, workload: Workload, latency: Metric) -> dict[str, Metric]:
        """The family's own standard metrics, from the latency of one call of this workload."""

    def load(self, directory: Path, *, attention: str | None = None) -> torch.nn.Module:
        """This checkpoint as a module in eval mode: keyword tensors in, `{output: tensor}` out.

        Args:
            directory: a folder with `config.json` and safetensors.
            attention: transformers' attention implementation; its default when None.

        Raises:
            UsageError: a tensor that the judged outputs need is not in the checkpoint (transformers
                would fill it with random numbers).
        """
        from assay.families.module import JudgedModule, load_pretrained

        return JudgedModule(self, load_pretrained(self, directory, attention))

    def accept(self, config: Config, directory: Path) -> None:
        """Refuse a configuration of another architecture.

        Raises:
            UsageError: naming what was found and what this row takes.
        """
        found = tuple(config.get("architectures") or ())
        if not found or not set(found) <= set(self.architectures):
            raise UsageError(
                f"{directory}: the {self.title} row takes {', '.join(self.architectures)}; "
                f"config.json says {', '.join(found) or 'no architecture'}"
            )


def rate(latency: Metric, amount: float, unit: str) -> Metric:
    """`amount` per call as a rate, its interval turned around with the latency's."""
    low = amount / latency.high if latency.high else None
    high = amount / latency.low if latency.low else None
    return Metric(
        value=amount / latency.value, unit=unit, low=low, high=high,
        samples=latency.samples, stable=latency.stable, better="higher",
    )  # fmt: skip


def token_ids(rng: np.random.Generator, vocabulary: int, shape: tuple[int, ...], special: int = 0) -> np.ndarray:
    """Random token ids, int64, from `special` (the first ids are special tokens) to the vocabulary's end."""
    return rng.integers(special, vocabulary, size=shape, dtype=np.int64)


def attention_mask(
    rng: np.random.Generator, batch: int, length: int, *, padded: bool, side: Literal["left", "right"] = "right"
) -> np.ndarray:
    """An int64 mask of shape (batch, length); with `padded`, every row but the first has its own padding."""
    mask = np.ones((batch, length), dtype=np.int64)
    if padded:
        for row in range(1, batch):
            padding = int(rng.integers(1, max(2, length // 2)))
            if side == "right":
                mask[row, length - padding :] = 0
            else:
                mask[row, :padding] = 0
    return mask
