"""What a family is: a row of the matrix, a task plus an allow-list of architectures.

A family knows its configuration, inputs, judged outputs, preprocessing and metrics. It knows
nothing of backends. transformers and torch are imported only inside the methods that need them,
so that a runner of another runtime can make a family's challenges with numpy alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from assay.errors import UsageError, listed
from assay.schema import Metric, Precision, Workload

if TYPE_CHECKING:
    import torch
    from PIL.Image import Image
    from transformers import PreTrainedConfig, PreTrainedModel

Tensors = Mapping[str, np.ndarray]
Config = Mapping[str, Any]
"""A checkpoint's `config.json`, parsed."""

ACCEPTS = "accepts"
"""In a described configuration: the names of the tensors that the model's forward takes."""

LENGTHENED = ("text", "embeddings", "generation")
"""Kinds of family whose users choose the length."""
POSITIONS = ("max_position_embeddings", "n_positions")
RESERVED = 2
"""Positions that some architectures leave to padding: RoBERTa's first token has position 2."""

Kind = Literal["text", "vision", "audio", "embeddings", "generation"]
Graph = Literal["encoder", "dual-encoder", "decoder", "encoder-decoder"]


class Family(ABC):
    """One row of the matrix.

    Class attributes:
        id, title: the row's id and heading.
        kind: which table of metrics it belongs to.
        item: what throughput counts: one for each row of a batch; of decoding, one for each row of a step.
        graph: the kind of graph, which is all that a backend may know of it.
        auto_class: the transformers auto class that loads its checkpoints.
        model_options: keyword arguments of `from_pretrained` (a head that is not judged left out), for the
            architectures that take them.
        sizes: the sizes of local test model that `config` knows.
        architectures: the `architectures` entries of `config.json` that this row accepts, as names or as
            patterns (`*ForCausalLM`); the row's own first.
        modules: modelling modules that the role servers import ahead.
        outputs: names of the judged outputs.
        pairwise: those of them that have a row for each item and a column for each item of another input
            (similarities of images and captions).
        dynamic: for each input, which axes vary, by name: `{"input_ids": {0: "batch", 1: "length"}}`; of these an
            architecture gets the ones that it takes.
        sample: the shape that an export is traced with; no challenge has the same batch or length.
        measured: the batch-1 workload that the columns compare.
        challenges: the workloads that are judged.
    """

    id: ClassVar[str]
    title: ClassVar[str]
    kind: ClassVar[Kind]
    item: ClassVar[str] = "inputs"
    graph: ClassVar[Graph]
    auto_class: ClassVar[str]
    model_options: ClassVar[Mapping[str, Any]] = {}
    sizes: ClassVar[tuple[str, ...]] = ("tiny", "base")
    architectures: ClassVar[tuple[str, ...]]
    modules: ClassVar[tuple[str, ...]]
    outputs: ClassVar[tuple[str, ...]]
    pairwise: ClassVar[tuple[str, ...]] = ()
    dynamic: ClassVar[Mapping[str, Mapping[int, str]]]
    sample: ClassVar[Workload]
    measured: ClassVar[Workload]
    challenges: ClassVar[tuple[Workload, ...]]

    @property
    def workloads(self) -> tuple[Workload, ...]:
        """Everything that a cell of this row runs."""
        return (self.measured, *self.challenges)

    def lengths(self, config: Config) -> tuple[Workload, ...]:
        """The measured workload at twice, four and eight times its length, as far as the model has positions for it.

        None where length is nothing that users vary.
        """
        if self.kind not in LENGTHENED or not self.measured.length:
            return ()
        positions = min((config[name] for name in POSITIONS if config.get(name)), default=None)
        longer = (self.measured.model_copy(update={"length": times * self.measured.length}) for times in (2, 4, 8))
        return tuple(each for each in longer if positions is None or each.length <= positions - RESERVED)

    @abstractmethod
    def config(self, size: str) -> PreTrainedConfig:
        """The configuration of the local test model of this size."""

    @abstractmethod
    def save_processor(self, directory: Path, config: PreTrainedConfig) -> None:
        """Write the tokenizer or processor files that belong to a local test model."""

    @abstractmethod
    def inputs(self, config: Config, workload: Workload, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Fresh tensors of this workload's shape, from numpy alone.

        Args:
            config: the checkpoint's configuration, described or just as `config.json` has it.
            workload: the shape.
            rng: where the numbers come from.

        Returns:
            A tensor for every key of `dynamic`, but for those that the architecture is not meant to get.
            What its forward does not take, `accepted` leaves out.
        """

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

    def transcript(self, directory: Path, outputs: Tensors) -> str | None:
        """What the first row of these outputs reads as, by the checkpoint's own tokenizer; None where it is no text.

        Raises:
            UsageError: the folder has no tokenizer, or it cannot be read.
        """
        return None

    def describe(self, directory: Path) -> Config:
        """The checkpoint's configuration as transformers reads it, defaults filled in, with `ACCEPTS`.

        Raises:
            UsageError: transformers has no such model.
        """
        from assay.families.module import describe

        return describe(self, directory)

    def load(
        self, directory: Path, *, attention: str | None = None, precision: Precision = Precision.F32
    ) -> torch.nn.Module:
        """This checkpoint as a module in eval mode: keyword tensors in, `{output: tensor}` out.

        Args:
            directory: a folder with `config.json` and safetensors.
            attention: transformers' attention implementation; its default when None.
            precision: the `dtype` that transformers is asked for, and what that means is theirs: rotary frequencies
                stay float32, and at f16 the weights that would overflow.

        Raises:
            UsageError: a tensor that the judged outputs need is not in the checkpoint (transformers
                would fill it with random numbers).
        """
        from assay.families.module import JudgedModule, load_pretrained

        return JudgedModule(self, load_pretrained(self, directory, attention, precision))

    def accept(self, config: Config, directory: Path) -> None:
        """Refuse a configuration of another architecture.

        Raises:
            UsageError: naming what was found and what this row takes.
        """
        found = tuple(config.get("architectures") or ())
        if not found or not all(fit(each, self.architectures) for each in found):
            raise UsageError(
                f"{directory}: the {self.title} row takes {listed(self.architectures, 12)}; "
                f"config.json says {', '.join(found) or 'no architecture'}"
            )

    def claim(self, config: Config, directory: Path) -> int:
        """How well a checkpoint fits this row, for one that comes without a family: the higher the more specific.

        2: the row names its architecture. 1: a pattern of the row fits it. 0: the row does not take it.
        """
        return min((fit(each, self.architectures) for each in config.get("architectures") or ()), default=0)


def fit(architecture: str, allowed: Sequence[str]) -> int:
    """2 where the name is in the list, 1 where a pattern of the list fits it, else 0."""
    if architecture in allowed:
        return 2
    return int(any(fnmatchcase(architecture, pattern) for pattern in allowed))


def heads(towers: Sequence[str], ends: Sequence[str]) -> tuple[str, ...]:
    """Names of architectures, one end after the other: `BertModel`, `RobertaModel`, `BertForMaskedLM`, ..."""
    return tuple(f"{tower}{end}" for end in ends for tower in towers)


def accepted(config: Config, tensors: Tensors) -> dict[str, np.ndarray]:
    """The tensors that the model's forward takes; all of them where the configuration is not a described one."""
    return {name: array for name, array in tensors.items() if name in config.get(ACCEPTS, tensors)}


def settings(config: Config, part: str | None = None, **defaults: Any) -> dict[str, Any]:
    """A configuration with its defaults filled in: older checkpoints leave out what equals the class default.

    Args:
        config: the parsed `config.json`.
        part: a nested configuration, such as `text_config`; the older `text_config_dict` overrides it, as in
            transformers.
        defaults: the values of keys that are not written.
    """
    if part is None:
        return {**defaults, **config}
    return {**defaults, **(config.get(part) or {}), **(config.get(f"{part}_dict") or {})}


def token_ids(
    rng: np.random.Generator, vocabulary: int, shape: tuple[int, ...], avoid: Sequence[int | None] = ()
) -> np.ndarray:
    """Random token ids, int64, of the whole vocabulary but for the ids in `avoid`."""
    # Looking for doubles takes milliseconds of a vocabulary, after which the threads of a runtime are asleep.
    allowed = np.setdiff1d(np.arange(vocabulary), [each for each in avoid if each is not None], assume_unique=True)
    ids: np.ndarray = allowed[rng.integers(len(allowed), size=shape)].astype(np.int64)
    return ids


def attention_mask(rng: np.random.Generator, batch: int, length: int, *, padded: bool) -> np.ndarray:
    """An int64 mask of shape (batch, length); with `padded`, every row but the first ends in its own padding."""
    mask = np.ones((batch, length), dtype=np.int64)
    if padded:
        for row in range(1, batch):
            mask[row, length - int(rng.integers(1, max(2, length // 2))) :] = 0
    return mask


def text(
    rng: np.random.Generator,
    workload: Workload,
    vocabulary: int,
    *,
    padding: int | None = 0,
    end: int | None = None,
    avoid: Sequence[int | None] = (),
) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask`, int64 of shape (batch, length), padded on the right.

    Args:
        rng: where the ids come from.
        workload: batch, length and whether rows are padded.
        vocabulary: ids are below this.
        padding: the id at padded positions; it appears nowhere else. None, or not of the vocabulary: 0, which may.
        end: where given, the last real token of every row, and nowhere else.
        avoid: further ids that are not drawn.
    """
    shape = (workload.batch, workload.length)
    padding = padding if padding is not None and 0 <= padding < vocabulary else None
    mask = attention_mask(rng, *shape, padded=workload.padded)
    ids = token_ids(rng, vocabulary, shape, (*avoid, padding, end))
    if end is not None:
        ids[np.arange(workload.batch), mask.sum(axis=1) - 1] = end
    return {"input_ids": np.where(mask == 1, ids, padding or 0), "attention_mask": mask}


def texture(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Images or spectrograms with structure, float32 of unit variance: coarse blocks under fine noise.

    Trained towers map all white noise to nearly the same point, so noise alone would tell them apart badly.
    """
    *lead, height, width = shape
    block = (max(1, height // 4), max(1, width // 4))
    coarse = rng.standard_normal((*lead, -(-height // block[0]), -(-width // block[1])), dtype=np.float32)
    coarse = np.float32(0.8) * coarse.repeat(block[1], axis=-1)[..., :width]
    mixed: np.ndarray = rng.standard_normal(shape, dtype=np.float32)
    mixed *= np.float32(0.6)
    for row in range(coarse.shape[-2]):  # in place: a sweep draws hundreds of spectrograms at once
        mixed[..., row * block[0] : (row + 1) * block[0], :] += coarse[..., row : row + 1, :]
    return mixed


def waveform(rng: np.random.Generator, batch: int, seconds: float, rate: int) -> np.ndarray:
    """Sound, float32 of shape (batch, samples), zero mean and unit variance a row: three tones under noise."""
    time = np.arange(round(seconds * rate)) / rate
    pitch = rng.uniform(80, min(4000, rate / 2), size=(batch, 3, 1))
    phase = rng.uniform(0, 2 * np.pi, size=(batch, 3, 1))
    sound = np.sin(2 * np.pi * pitch * time + phase).sum(axis=1) + 0.5 * rng.standard_normal((batch, len(time)))
    sound -= sound.mean(axis=1, keepdims=True)
    normal: np.ndarray = (sound / sound.std(axis=1, keepdims=True)).astype(np.float32)
    return normal


WORDS = (
    "the", "a", "one", "my", "small", "old", "red", "quiet", "dog", "bird", "ship", "house", "child", "river",
    "song", "storm", "sees", "hears", "follows", "likes", "near", "under", "with", "again",
)  # fmt: skip
"""What raw sentences are made of; the local test models' tokenizers know them."""


def sentence(rng: np.random.Generator, words: int = 10) -> str:
    """A raw sample of text: random words."""
    return " ".join(rng.choice(WORDS, size=words))


def picture(rng: np.random.Generator, height: int = 240, width: int = 320) -> Image:
    """A raw sample of vision: an RGB image of random pixels, larger than models take, to be resized and cropped."""
    from PIL import Image

    pixels = np.clip(128 + 60 * texture(rng, 3, height, width), 0, 255).astype(np.uint8)
    return Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0)))


_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model")
_PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")


def load_tokenizer(directory: Path) -> Any:
    """The checkpoint's own tokenizer.

    Raises:
        UsageError: the folder has none, or it cannot be read.
    """
    return _load_processor("AutoTokenizer", "tokenizer", directory, _TOKENIZER_FILES)


def load_processor(directory: Path) -> Any:
    """The checkpoint's own processor.

    Raises:
        UsageError: the folder has none, or it cannot be read.
    """
    return _load_processor("AutoProcessor", "processor", directory, _PROCESSOR_FILES)


@cache  # every raw sample asks for it, and a large vocabulary takes a second to read
def _load_processor(auto_class: str, what: str, directory: Path, files: tuple[str, ...]) -> Any:
    # transformers makes an empty tokenizer up where there is no file, so look first.
    if not any((directory / name).is_file() for name in files):
        raise UsageError(f"{directory}: no {what} ({', '.join(files)}), so preprocessing cannot be timed")
    import transformers

    try:
        return getattr(transformers, auto_class).from_pretrained(
            directory, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:
        reason = " ".join(str(error).split())[:200]
        raise UsageError(f"{directory}: the {what} cannot be loaded: {type(error).__name__}: {reason}") from error
