"""Checkpoints: local test models, twins and users' folders, each known by the digest of its content.

Nothing here imports torch or transformers unless a model has to be built: files are read as the bytes they are.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from assay import cache, families, hub
from assay.errors import UsageError, unknown
from assay.schema import OWN, CheckpointRef

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SEAL = cache.MARKERS["checkpoints"]
"""The digest of a folder that assay made, as it was when it was made."""
_MODULES = "modules.json"
"""Says which modules of a sentence-transformers folder compute, and where their configurations are."""
_RECORDS = frozenset({"transformers_version", "_name_or_path", "_commit_hash"})
"""Keys of a configuration that only record where it came from."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_TEXT = frozenset({".json", ".txt", ".model", ".jinja"})
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_INTEGERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "?"}


@dataclass(frozen=True)
class Checkpoint:
    """A folder with `config.json` and safetensors, in the role that a family gives it.

    Attributes:
        family: the family's id.
        path: the folder.
        sha256: `digest(path)`.
        source: made by assay, a user's folder, or the hub.
        name: what to call it: a folder's name, or the hub's id.
        size: `tiny`, or `own` for what a user brought.
        revision: the commit's hash on the hub.
    """

    family: str
    path: Path
    sha256: str
    source: Literal["local", "path", "hub"]
    name: str
    size: str
    revision: str | None = None

    def config(self) -> dict[str, Any]:
        """The parsed `config.json`."""
        return _configuration(self.path)

    def ref(self) -> CheckpointRef:
        """What reports say of it."""
        return CheckpointRef(sha256=self.sha256, source=self.source, name=self.name, revision=self.revision)


@dataclass(frozen=True)
class Source:
    """Where a user's checkpoint lies: a folder, its name, and the commit's hash where it came from the hub."""

    path: Path
    name: str
    revision: str | None = None


def find(text: str) -> Source:
    """What a user named: a folder, or else an id of the hub (`org/name`, `org/name@revision`), fetched if need be.

    Raises:
        UsageError: there is neither.
    """
    path = Path(text)
    if path.exists() or not hub.is_id(text):
        if not path.is_dir():
            raise UsageError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
        return Source(path.absolute(), path.absolute().name)
    return Source(*hub.snapshot(text))


def row(source: Source) -> str:
    """The family whose row is the most specific of those that take this checkpoint.

    A sentence-transformers folder goes to its own row, then a row that names the architecture comes before one
    that only has a pattern for it; of equals, the first in the order of the matrix.

    Raises:
        UsageError: no row takes it.
    """
    config = _configuration(source.path)
    claims = {name: families.load(name).claim(config, source.path) for name in families.names()}
    best = max(claims, key=lambda name: claims[name])
    if not claims[best]:
        found = ", ".join(config.get("architectures") or ()) or "no architecture"
        raise UsageError(f"{source.name}: no row takes it; config.json says {found}")
    return best


def digest(directory: Path) -> str:
    """SHA-256 of what a folder computes with: the configuration, and names, types, shapes and bytes of all tensors.

    It does not depend on the order of tensors, on shards, or on the versions that a configuration records.

    Raises:
        UsageError: a file is missing or is not what its name says.
    """
    total = hashlib.sha256()
    for name in (CONFIG, *_modules(directory)):
        if (directory / name).is_file():
            content = json.dumps(_meaning(_read_json(directory / name)), sort_keys=True)
            total.update(f"{name}\0{content}\0".encode())
    headers = {file: _header(file) for file in weight_files(directory)}
    places = sorted((name, file) for file, (_, header) in headers.items() for name in header)
    for name, file in places:
        start, header = headers[file]
        total.update(f"{name}\0{header[name]['dtype']}\0{header[name]['shape']}\0".encode())
        begin, end = header[name]["data_offsets"]
        with file.open("rb") as stream:
            stream.seek(start + begin)
            for size in _pieces(end - begin):
                total.update(stream.read(size))
    return total.hexdigest()


def parameters(directory: Path) -> int:
    """How many numbers the tensors of a folder hold; their headers alone are read.

    Raises:
        UsageError: a file is missing or is not what its name says.
    """
    headers = (_header(file)[1] for file in weight_files(directory))
    return sum(math.prod(tensor["shape"]) for header in headers for tensor in header.values())


def _modules(directory: Path) -> list[str]:
    """Beside the configuration, the files that say what a sentence-transformers folder computes."""
    if not (directory / _MODULES).is_file():
        return []
    modules = _read_json(directory / _MODULES)
    paths = (each.get("path") for each in modules if isinstance(each, dict)) if isinstance(modules, list) else ()
    return [_MODULES, *(f"{path}/{CONFIG}" for path in paths if path)]


SMALL = 64 * 2**20
"""Bytes of weights below which a second thread costs more in waiting than it computes."""


def is_small(directory: Path) -> bool:
    """Whether a model is so small that one core serves it best."""
    return sum(file.stat().st_size for file in weight_files(directory)) < SMALL


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that transformers loads: the one file, or the shards that the index names.

    Raises:
        UsageError: there are none.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        index = _read_json(directory / INDEX)
        shards = sorted(set(index.get("weight_map", {}).values())) if isinstance(index, dict) else []
        for shard in shards:
            if Path(shard).name != shard or not (directory / shard).is_file():
                raise UsageError(f"{directory}: {INDEX} names {shard}, which is not in the folder")
        if shards:
            return [directory / shard for shard in shards]
    pickles = sorted(file.name for pattern in _PICKLES for file in directory.glob(pattern))
    if pickles:
        raise UsageError(
            f"{directory}: no {WEIGHTS}; {pickles[0]} is a pickle, which can run code and is refused: "
            "convert it with save_pretrained, which writes safetensors"
        )
    raise UsageError(f"{directory}: no {WEIGHTS} (nor {INDEX})")


def tensors(directory: Path) -> Iterator[tuple[str, np.ndarray]]:
    """Name and content of every tensor, one at a time; floats as float32, which bf16 and f16 become exactly.

    Raises:
        UsageError: a file is missing or is not what its name says, or holds a type that no model computes in.
    """
    for file in weight_files(directory):
        start, header = _header(file)
        for name, entry in header.items():
            kind = (_FLOATS | _INTEGERS).get(entry["dtype"])
            if kind is None:
                raise UsageError(f"{file}: {name} is of type {entry['dtype']}, which assay does not read")
            array = _read(file, start, entry, kind)
            if entry["dtype"] == "BF16":
                array = (array.astype("<u4") << 16).view("<f4")
            yield name, array.astype(np.float32) if entry["dtype"] in _FLOATS else array


def local(family_id: str, size: str = "tiny", seed: int = 0) -> Checkpoint:
    """The local test model of a family, from the cache or made now.

    Args:
        family_id: the family.
        size: `tiny`.
        seed: another seed, other weights.

    Raises:
        UsageError: no such family or size.
    """
    family = families.load(family_id)
    if size not in family.sizes:
        raise unknown("size", size, family.sizes)
    name = f"{family_id}-{size}-{seed}"

    def build(draft: Path) -> None:
        import transformers

        config = family.config(size)
        config.save_pretrained(draft)
        family.save_processor(draft, config)
        write_weights(getattr(transformers, family.auto_class), config, draft, seed)

    folder, sha256 = _kept("checkpoints", f"{name}-{_recipe(family_id)[:16]}", build)
    return Checkpoint(family_id, folder, sha256, "local", name, size)


def twin(checkpoint: Checkpoint) -> Checkpoint:
    """The same folder with other weights: names, types, shapes, shards and all other files are the checkpoint's own.

    Every tensor keeps its numbers and gets them in another order along each axis, so that activations stay as
    large as they are. The order follows from the tensor's content: copies of a tensor stay copies. Integers are
    indices and stay; so does what has a single value, which is all that an order cannot change.
    """
    key = hashlib.sha256(f"{checkpoint.sha256}{_recipe(checkpoint.family)}".encode()).hexdigest()

    def build(draft: Path) -> None:
        for file in (*checkpoint.path.glob("*"), *checkpoint.path.glob("*/config.json")):
            if file.is_file() and file.suffix in _TEXT:
                target = draft / file.relative_to(checkpoint.path)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)
        for file in weight_files(checkpoint.path):
            _reorder(file, draft / file.name, checkpoint.sha256)

    folder, sha256 = _kept("twins", f"{checkpoint.family}-{key[:16]}", build)
    return replace(checkpoint, path=folder, sha256=sha256, name=f"{checkpoint.name}-twin")


def opened(family_id: str, source: Source | Path) -> Checkpoint:
    """A user's checkpoint.

    Raises:
        UsageError: the folder is missing, holds no configuration or no safetensors, wants its own code run, is
            quantised, or is of an architecture that the family does not take.
    """
    family = families.load(family_id)
    source = find(str(source.absolute())) if isinstance(source, Path) else source
    path = source.path
    config = _configuration(path)
    if "auto_map" in config:
        raise UsageError(f"{path}: config.json asks for code of its own (auto_map), which assay never runs")
    if quantised := config.get("quantization_config"):
        method = quantised.get("quant_method", "unknown method") if isinstance(quantised, dict) else "unknown method"
        raise UsageError(f"{path}: quantised ({method}); assay takes the weights as they were before")
    family.accept(config, path)
    origin: Literal["path", "hub"] = "hub" if source.revision else "path"
    return Checkpoint(family_id, path, digest(path), origin, source.name, OWN, source.revision)


def _kept(kind: cache.Kind, name: str, build: Callable[[Path], None]) -> tuple[Path, str]:
    """The folder and digest of a checkpoint that assay makes; where the content is not what was written, anew."""

    def sealed(draft: Path) -> None:
        build(draft)
        (draft / SEAL).write_text(json.dumps({"sha256": digest(draft)}), encoding="utf-8")

    folder = cache.entry(kind, name, sealed, _whole)
    sha256: str = _read_json(folder / SEAL)["sha256"]
    return folder, sha256


def _whole(folder: Path) -> bool:
    """Published in one step, it was whole; it may have been damaged later."""
    try:
        return bool(_read_json(folder / SEAL) == {"sha256": digest(folder)})
    except UsageError:
        return False


def _reorder(source: Path, target: Path, seed: str) -> None:
    """Copy a safetensors file, every axis of every tensor of floats in another order."""
    shutil.copyfile(source, target)
    start, header = _header(source)
    with target.open("r+b") as stream:
        for entry in header.values():
            if not entry["dtype"].startswith(("F", "BF")):
                continue
            begin, end = entry["data_offsets"]
            width = (end - begin) // (math.prod(entry["shape"]) or 1)
            if width:
                array = _read(source, start, entry, f"<u{width}")
                stream.seek(start + begin)
                stream.write(_reordered(array, f"{seed}{entry['dtype']}{entry['shape']}").tobytes())


def _reordered(array: np.ndarray, seed: str) -> np.ndarray:
    """The array with every axis permuted by the order of raw random bits, which no library's version changes."""
    key = hashlib.sha256(seed.encode() + array.tobytes()).digest()[:16]
    bits = np.random.Philox(key=int.from_bytes(key, "little"))
    for axis, size in enumerate(array.shape):
        array = array.take(np.argsort(bits.random_raw(size), kind="stable"), axis=axis)
    return array


def write_weights(model_class: Any, config: PreTrainedConfig, directory: Path, seed: int) -> None:
    """Write weights that show for a model of this (auto) class and configuration."""
    import torch
    from safetensors.numpy import save_file

    from assay.weights import local_weights

    with torch.device("meta"):  # names and shapes without a byte of weights
        model = (getattr(model_class, "from_config", None) or model_class)(config)
    save_file(local_weights(model, seed), directory / WEIGHTS, metadata={"format": "pt"})


def _recipe(family_id: str) -> str:
    """What the bytes of a local model depend on: transformers' version, and the source that makes them."""
    package = Path(__file__).parent
    own = (package / "weights.py", package / "checkpoints.py", *sorted((package / "families").glob("*.py")))
    total = hashlib.sha256(version("transformers").encode())
    for source in (Path(inspect.getfile(type(families.load(family_id)))), *own):
        total.update(source.read_bytes())
    return total.hexdigest()


def _configuration(directory: Path) -> dict[str, Any]:
    config = _read_json(directory / CONFIG)
    if not isinstance(config, dict):
        raise UsageError(f"{directory / CONFIG}: not a JSON object")
    return config


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"{file.parent}: no {file.name}") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{file}: not JSON ({error})") from error


def _header(file: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, and its header: `{name: {dtype, shape, data_offsets}}`."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if not 0 < length <= file.stat().st_size - 8:
            raise UsageError(f"{file}: not a safetensors file")
        try:
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            end = max((each["data_offsets"][1] for each in header.values()), default=0)
        except (ValueError, TypeError, KeyError, AttributeError):
            raise UsageError(f"{file}: not a safetensors file") from None
    if file.stat().st_size != 8 + length + end:
        raise UsageError(f"{file}: cut short; its header promises another size")
    return 8 + length, header


def _read(file: Path, start: int, entry: dict[str, Any], kind: str) -> np.ndarray:
    """A tensor as an array of this kind; `entry` is its part of the header."""
    begin, end = entry["data_offsets"]
    count = (end - begin) // np.dtype(kind).itemsize
    array: np.ndarray = np.fromfile(file, kind, count, offset=start + begin).reshape(entry["shape"])
    return array


def _pieces(size: int, piece: int = 1 << 24) -> Iterator[int]:
    while size > 0:
        yield min(size, piece)
        size -= piece


def _meaning(value: Any) -> Any:
    """A configuration without the keys that only record where it came from."""
    if isinstance(value, dict):
        return {key: _meaning(each) for key, each in value.items() if key not in _RECORDS}
    return [_meaning(each) for each in value] if isinstance(value, list) else value
