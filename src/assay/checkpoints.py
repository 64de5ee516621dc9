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
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from assay import cache, families
from assay.errors import UsageError, unknown
from assay.schema import CheckpointRef

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

    from assay.families.base import Family

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SEAL = cache.MARKERS["checkpoints"]
"""The digest of a folder that assay made, as it was when it was made."""
_FUNCTION = ("modules.json", "1_Pooling/config.json")
"""Beside the configuration, the files that say what a sentence-transformers folder computes."""
_RECORDS = frozenset({"transformers_version", "_name_or_path", "_commit_hash"})
"""Keys of a configuration that only record where it came from."""
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_TEXT = frozenset({".json", ".txt", ".model", ".jinja"})


@dataclass(frozen=True)
class Checkpoint:
    """A folder with `config.json` and safetensors, in the role that a family gives it.

    Attributes:
        family: the family's id.
        path: the folder.
        sha256: `digest(path)`.
        source: made by assay, a user's folder, or the hub.
        name: what to call it.
        size: `tiny`, or `own` for a user's folder.
    """

    family: str
    path: Path
    sha256: str
    source: Literal["local", "path", "hub"]
    name: str
    size: str

    def config(self) -> dict[str, Any]:
        """The parsed `config.json`."""
        return _configuration(self.path)

    def ref(self) -> CheckpointRef:
        """What reports say of it."""
        return CheckpointRef(sha256=self.sha256, source=self.source, name=self.name)


def digest(directory: Path) -> str:
    """SHA-256 of what a folder computes with: the configuration, and names, types, shapes and bytes of all tensors.

    It does not depend on the order of tensors, on shards, or on the versions that a configuration records.

    Raises:
        UsageError: a file is missing or is not what its name says.
    """
    total = hashlib.sha256()
    for name in (CONFIG, *_FUNCTION):
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
        config = family.config(size)
        config.save_pretrained(draft)
        family.save_processor(draft, config)
        _write_weights(family, config, draft, seed)

    folder, sha256 = _kept("checkpoints", f"{name}-{_recipe(family_id)[:16]}", build)
    return Checkpoint(family_id, folder, sha256, "local", name, size)


def twin(checkpoint: Checkpoint) -> Checkpoint:
    """The same architecture, configuration and processor with other weights, whose seed is the original's digest."""
    key = hashlib.sha256(f"{checkpoint.sha256}{_recipe(checkpoint.family)}".encode()).hexdigest()

    def build(draft: Path) -> None:
        from transformers import AutoConfig

        for file in (*checkpoint.path.glob("*"), *checkpoint.path.glob("*/config.json")):
            if file.is_file() and file.suffix in _TEXT and file.name != INDEX:
                target = draft / file.relative_to(checkpoint.path)
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(file, target)
        config = AutoConfig.from_pretrained(draft, local_files_only=True, trust_remote_code=False)
        _write_weights(families.load(checkpoint.family), config, draft, int(checkpoint.sha256[:16], 16))

    folder, sha256 = _kept("twins", f"{checkpoint.family}-{key[:16]}", build)
    name = f"{checkpoint.name}-twin"
    return Checkpoint(checkpoint.family, folder, sha256, checkpoint.source, name, checkpoint.size)


def opened(family_id: str, path: Path) -> Checkpoint:
    """A user's checkpoint.

    Raises:
        UsageError: the folder is missing, holds no configuration or no safetensors, wants its own code run, or is
            of an architecture that the family does not take.
    """
    family = families.load(family_id)
    if not path.is_dir():
        raise UsageError(f"{path}: {'not a folder' if path.exists() else 'no such folder'}")
    path = path.absolute()
    config = _configuration(path)
    if "auto_map" in config:
        raise UsageError(f"{path}: config.json asks for code of its own (auto_map), which assay never runs")
    family.accept(config, path)
    return Checkpoint(family_id, path, digest(path), "path", path.name, "own")


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


def _write_weights(family: Family, config: PreTrainedConfig, directory: Path, seed: int) -> None:
    import torch
    import transformers
    from safetensors.numpy import save_file

    from assay.weights import local_weights

    with torch.device("meta"):  # names and shapes without a byte of weights
        model = getattr(transformers, family.auto_class).from_config(config)
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


def _pieces(size: int, piece: int = 1 << 24) -> Iterator[int]:
    while size > 0:
        yield min(size, piece)
        size -= piece


def _meaning(value: Any) -> Any:
    """A configuration without the keys that only record where it came from."""
    if isinstance(value, dict):
        return {key: _meaning(each) for key, each in value.items() if key not in _RECORDS}
    return [_meaning(each) for each in value] if isinstance(value, list) else value
