"""Folders of safetensors files, read as the bytes they are: no torch, no transformers."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from assay.errors import UsageError
from assay.files import read_json

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_FLOATS = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2"}
_INTEGERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "<i1", "U8": "<u1", "BOOL": "?"}

SMALL = 64 * 2**20
"""Bytes of weights below which a second thread costs more in waiting than it computes."""


def is_small(directory: Path) -> bool:
    """Whether a model is so small that one core serves it best."""
    return sum(file.stat().st_size for file in weight_files(directory)) < SMALL


def parameters(directory: Path) -> int:
    """How many numbers the tensors of a folder hold; their headers alone are read.

    Raises:
        UsageError: a file is missing or is not what its name says.
    """
    headers = (read_header(file)[1] for file in weight_files(directory))
    return sum(math.prod(tensor["shape"]) for header in headers for tensor in header.values())


def weight_files(directory: Path) -> list[Path]:
    """The safetensors files that transformers loads: the one file, or the shards that the index names.

    Raises:
        UsageError: there are none.
    """
    if (directory / WEIGHTS).is_file():
        return [directory / WEIGHTS]
    if (directory / INDEX).is_file():
        index = read_json(directory / INDEX)
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
        start, header = read_header(file)
        for name, entry in header.items():
            kind = (_FLOATS | _INTEGERS).get(entry["dtype"])
            if kind is None:
                raise UsageError(f"{file}: {name} is of type {entry['dtype']}, which assay does not read")
            array = read_tensor(file, start, entry, kind)
            if entry["dtype"] == "BF16":
                array = (array.astype("<u4") << 16).view("<f4")
            yield name, array.astype(np.float32, copy=False) if entry["dtype"] in _FLOATS else array


def read_header(file: Path) -> tuple[int, dict[str, Any]]:
    """Where the tensors of a safetensors file begin, and its header: `{name: {dtype, shape, data_offsets}}`.

    Raises:
        UsageError: it is no such file, or is cut short.
    """
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


def read_tensor(file: Path, start: int, entry: Mapping[str, Any], kind: str) -> np.ndarray:
    """A tensor as an array of this kind; `entry` is its part of the header."""
    begin, end = entry["data_offsets"]
    count = (end - begin) // np.dtype(kind).itemsize
    array: np.ndarray = np.fromfile(file, kind, count, offset=start + begin).reshape(entry["shape"])
    return array
