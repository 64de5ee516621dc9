"""Checkpoints: local test models, twins and users' folders, each known by the digest of its content.

Nothing here imports torch or transformers unless a model has to be built: files are read as the bytes they are.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import math
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from assay import cache, families, hub
from assay.errors import UsageError, unknown
from assay.files import read_json
from assay.schema import OWN, CheckpointRef
from assay.tensor_files import WEIGHTS, read_header, read_tensor, weight_files

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

CONFIG = "config.json"
SEAL = cache.MARKERS["checkpoints"]
"""The digest of a folder that assay made, as it was when it was made."""
_MODULES = "modules.json"
"""Says which modules of a sentence-transformers folder compute, and where their configurations are."""
_RECORDS = frozenset({"transformers_version", "_name_or_path", "_commit_hash"})
"""Keys of a configuration that only record where it came from."""
_TEXT = frozenset({".json", ".txt", ".model", ".jinja"})


@dataclass(frozen=True)
class Checkpoint:
    """A folder with `config.json` and safetensors, in the role that a family gives it.

    Attributes:
        family: the family's id.
        path: the folder.
        sha256: `digest(path)`.
        source: made by assay, a user's folder, or the hub.
        name: what to call it: a folder's name, or the hub's id.
        size: `tiny` or `base`, or `own` for what a user brought.
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
            content = json.dumps(_meaning(read_json(directory / name)), sort_keys=True)
            total.update(f"{name}\0{content}\0".encode())
    headers = {file: read_header(file) for file in weight_files(directory)}
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


def _modules(directory: Path) -> list[str]:
    """Beside the configuration, the files that say what a sentence-transformers folder computes."""
    if not (directory / _MODULES).is_file():
        return []
    modules = read_json(directory / _MODULES)
    paths = (each.get("path") for each in modules if isinstance(each, dict)) if isinstance(modules, list) else ()
    return [_MODULES, *(f"{path}/{CONFIG}" for path in paths if path)]


def local(family_id: str, size: str = "tiny", seed: int = 0) -> Checkpoint:
    """The local test model of a family, from the cache or made now.

    Args:
        family_id: the family.
        size: `tiny` or `base`.
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
    return _reordered(checkpoint, "twin", _floats(checkpoint.path), checkpoint.sha256)


def matrices(directory: Path) -> list[str]:
    """The names of the tensors of floats that have two axes or more."""
    return list(_matrices(directory))


def chosen_tensor(directory: Path, seed: str) -> str:
    """The name of a matrix that another order changes, chosen by the seed with equal chances.

    Raises:
        UsageError: there is none.
    """
    stored = _matrices(directory)
    for name in sorted(stored, key=lambda name: hashlib.sha256(f"{seed}{name}".encode()).digest()):
        if not np.array_equal(stored[name].bits(), stored[name].in_another_order(seed)):
            return name
    raise UsageError(f"{directory}: no matrix whose numbers differ, so that none can be perturbed")


def perturbed(checkpoint: Checkpoint, tensor: str, seed: str) -> Checkpoint:
    """The same folder with one tensor, and what is a copy of it, in an order that the seed makes; see `twin`."""
    stored = _floats(checkpoint.path)
    chosen = stored[tensor]
    copies = {name: each for name, each in stored.items() if name == tensor or each.copies(chosen)}
    return _reordered(checkpoint, "perturbed", copies, seed)


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
    sha256: str = read_json(folder / SEAL)["sha256"]
    return folder, sha256


def _whole(folder: Path) -> bool:
    """Published in one step, it was whole; it may have been damaged later."""
    try:
        return bool(read_json(folder / SEAL) == {"sha256": digest(folder)})
    except UsageError:
        return False


@dataclass(frozen=True)
class _Stored:
    """A tensor where it lies: its file, where the tensors of that file begin, and its entry in the header."""

    file: Path
    start: int
    entry: Mapping[str, Any]

    @property
    def place(self) -> int:
        """The first of its bytes in the file."""
        begin: int = self.entry["data_offsets"][0]
        return self.start + begin

    @property
    def kind(self) -> str:
        """Type and shape."""
        return f"{self.entry['dtype']}{self.entry['shape']}"

    def bits(self) -> np.ndarray:
        """Its numbers as unsigned integers of their width."""
        begin, end = self.entry["data_offsets"]
        return read_tensor(self.file, self.start, self.entry, f"<u{(end - begin) // math.prod(self.entry['shape'])}")

    def copies(self, other: _Stored) -> bool:
        """Whether it holds what the other does."""
        return self.kind == other.kind and np.array_equal(self.bits(), other.bits())

    def in_another_order(self, seed: str) -> np.ndarray:
        """Every axis permuted by the order of raw random bits, which no library's version changes."""
        array = self.bits()
        key = hashlib.sha256(f"{seed}{self.kind}".encode() + array.tobytes()).digest()[:16]
        random = np.random.Philox(key=int.from_bytes(key, "little"))
        for axis, size in enumerate(array.shape):
            array = array.take(np.argsort(random.random_raw(size), kind="stable"), axis=axis)
        return array


def _floats(directory: Path) -> dict[str, _Stored]:
    """The tensors of floats by name; headers alone are read."""
    found: dict[str, _Stored] = {}
    for file in weight_files(directory):
        start, header = read_header(file)
        for name, entry in header.items():
            begin, end = entry["data_offsets"]
            if entry["dtype"].startswith(("F", "BF")) and 0 < math.prod(entry["shape"]) <= end - begin:
                found[name] = _Stored(file, start, entry)
    return found


def _matrices(directory: Path) -> dict[str, _Stored]:
    return {name: each for name, each in _floats(directory).items() if len(each.entry["shape"]) > 1}


def _reordered(checkpoint: Checkpoint, what: str, chosen: Mapping[str, _Stored], seed: str) -> Checkpoint:
    """A copy of the folder in which the chosen tensors are in another order."""
    recipe = (what, seed, checkpoint.sha256, _recipe(checkpoint.family), *sorted(chosen))
    key = hashlib.sha256("\0".join(recipe).encode()).hexdigest()

    def build(draft: Path) -> None:
        for file in (*checkpoint.path.glob("*"), *checkpoint.path.glob("*/config.json")):
            if file.is_file() and file.suffix in _TEXT:
                target = draft / file.relative_to(checkpoint.path)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)
        for file in weight_files(checkpoint.path):
            shutil.copyfile(file, draft / file.name)
        for each in chosen.values():
            with (draft / each.file.name).open("r+b") as stream:
                stream.seek(each.place)
                stream.write(each.in_another_order(seed).tobytes())

    folder, sha256 = _kept("twins", f"{checkpoint.family}-{key[:16]}", build)
    return replace(checkpoint, path=folder, sha256=sha256, name=f"{checkpoint.name}-{what}")


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
    names = ("weights.py", "checkpoints.py", "tensor_files.py")
    own = (*(package / name for name in names), *sorted((package / "families").glob("*.py")))
    total = hashlib.sha256(version("transformers").encode())
    for source in (Path(inspect.getfile(type(families.load(family_id)))), *own):
        total.update(source.read_bytes())
    return total.hexdigest()


def _configuration(directory: Path) -> dict[str, Any]:
    config = read_json(directory / CONFIG)
    if not isinstance(config, dict):
        raise UsageError(f"{directory / CONFIG}: not a JSON object")
    return config


def _pieces(size: int, piece: int = 1 << 24) -> Iterator[int]:
    while size > 0:
        yield min(size, piece)
        size -= piece


def _meaning(value: Any) -> Any:
    """A configuration without the keys that only record where it came from."""
    if isinstance(value, dict):
        return {key: _meaning(each) for key, each in value.items() if key not in _RECORDS}
    return [_meaning(each) for each in value] if isinstance(value, list) else value
