"""What is compared with what."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from assay import backends, families
from assay.backends.onnx_export import OnnxBackend
from assay.families.base import Family
from assay.families.generation import GeneratingFamily
from assay.schema import Precision, Workload

TOKENS = 64
"""Tokens of a prompt and of its continuation, at published size."""
ONE_PASS = {
    "openvino": ("openvino loop", "benchmark_app"),
    "onnxruntime": ("onnxruntime loop",),
    "cpu": ("torch loop",),
}
"""The peers of each backend's engine where a model runs in one pass."""
GENERATE = "transformers generate"
GENAI = "openvino-genai"
"""The peers where an engine decodes; the second runs the engine's own export, and decoders without an encoder alone."""
PEERS = (*(peer for peers in ONE_PASS.values() for peer in peers), GENAI, GENERATE)
LARGE = ("llama",)
"""Families whose published size takes gigabytes several times over."""


@dataclass(frozen=True)
class Comparison:
    """One engine of assay against one peer."""

    family: str
    backend: str
    size: str
    peer: str
    workload: Workload

    @property
    def name(self) -> str:
        """What the report calls it."""
        return f"{self.family}/{self.backend}/{self.size}"


def comparisons(
    names: Sequence[str], backends: Sequence[str], size: str, peers: Sequence[str] = PEERS, *, full: bool
) -> Iterator[Comparison]:
    """Everything that is compared, engine by engine; large models at published size only where all is asked for."""
    for name in names:
        if name in LARGE and size == "base" and not full:
            continue
        family = families.load(name)
        for backend in backends:
            for peer in _peers(family, backend):
                if peer in peers:
                    yield Comparison(name, backend, size, peer, _workload(family, size))


def _peers(family: Family, backend: str) -> tuple[str, ...]:
    if not isinstance(family, GeneratingFamily):
        return ONE_PASS[backend]
    exported = isinstance(backends.load(backend), OnnxBackend)
    return (GENAI, GENERATE) if family.graph == "decoder" and exported else (GENERATE,)


def _workload(family: Family, size: str) -> Workload:
    """The timed workload of a cell; at published size prompts and continuations are those of the usual benchmarks."""
    if not isinstance(family, GeneratingFamily):
        return family.measured
    if size == "tiny":
        return family.decoded
    length = {"length": TOKENS} if "length" in family.dynamic[_source(family)].values() else {}
    return family.decoded.model_copy(update={**length, "new_tokens": TOKENS})


def _source(family: GeneratingFamily) -> str:
    return next(iter(family.dynamic))


def prepare(family: str, backend: str, size: str, folder: Path) -> dict[str, Any]:
    """What a contestant is told of a local test model, exported if it is not in the cache; in a process of its own."""
    from assay import checkpoints

    checkpoint = checkpoints.local(family, size)
    config = folder / f"{family}-{size}.json"
    if not config.is_file():
        described = families.load(family).describe(checkpoint.path)
        config.write_text(json.dumps(described), encoding="utf-8")
    artifact = backends.load(backend).build(checkpoint, precision=Precision.F32)
    return {"checkpoint": str(checkpoint.path), "artifact": artifact.to_json(), "config": str(config)}


def quiet() -> None:
    """Drop what the exporter prints; an error comes back as one."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)
