"""torch to ONNX, once for every column that runs ONNX: cached by content, weights provable, written atomically.

The export is transformers' own (`transformers.exporters.OnnxExporter`) with `optimize=False`, which
keeps every parameter as an initialiser, bit for bit, under its name: that is what the weights layer
compares with the safetensors.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from assay import cache
from assay.backends import onnx_tensors
from assay.backends.base import Artifact, Backend, Stages
from assay.backends.onnx_tensors import Parameters, graphs, held
from assay.families.base import Config, Family, accepted
from assay.measure.clock import uncollected
from assay.schema import Precision

if TYPE_CHECKING:
    from assay.checkpoints import Checkpoint
    from assay.families.graphs import Graph

MODEL_FILE = "model.onnx"
"""The one graph, or the decoder's where there are two."""
ENCODER_FILE = "encoder.onnx"
MANIFEST = cache.MARKERS["exports"]
OPSET = 24
"""From 23 on attention is one operation: ONNX Runtime computes it faster, and OpenVINO is told what it is."""
_PACKAGES = ("torch", "transformers", "onnx", "onnxscript")


class OnnxBackend(Backend):
    """A column that runs the shared export."""

    builder_preload = ("onnx",)
    export_preload = ("assay.backends.onnx_preload",)
    builder_memory = 12
    """The module, the traced program and the tensors being written; 12.3 for BERT, 14.7 for MiniLM."""
    exports = 2

    def build(self, checkpoint: Checkpoint, *, precision: Precision) -> Artifact:
        """The shared ONNX export: float32, whatever the runtime is told to compute in; at int8 its weights are not."""
        return self._weighed(export(checkpoint), precision)

    def build_twin(self, checkpoint: Checkpoint, twin: Checkpoint, *, precision: Precision) -> Artifact:
        """The same graph with the twin's tensors."""
        return self._weighed(export_twin(checkpoint, twin), precision)

    def _weighed(self, artifact: Artifact, precision: Precision) -> Artifact:
        from assay.backends.quantised import quantiser

        return quantiser(self).quantised(artifact) if precision is Precision.INT8 else artifact

    def stages(self, checkpoint: Path, artifact: Artifact) -> Stages | None:
        """The exported program, and the graph."""
        from assay import families
        from assay.backends.onnx_stages import OnnxStages

        return OnnxStages(families.load(artifact.family), checkpoint, artifact) if artifact.format == "onnx" else None


def export(checkpoint: Checkpoint) -> Artifact:
    """The checkpoint as an ONNX folder with dynamic batch and length; from the cache if it was made before.

    The key is the content: checkpoint digest, versions of the exporting packages, options, and the
    source of the families and of this module, so that an edited family never meets a stale export.
    """
    from assay import families

    family = families.load(checkpoint.family)
    recipe = _recipe(family, checkpoint)
    return published(family, recipe, lambda target: _export(family, checkpoint, target))


def export_twin(checkpoint: Checkpoint, twin: Checkpoint) -> Artifact:
    """The checkpoint's export with the twin's tensors in place of the checkpoint's.

    Where a tensor's place cannot be told (two tensors of the same content, or one that the exporter
    changed), the twin goes the whole way instead.
    """
    from assay import families

    family = families.load(checkpoint.family)
    source = export(checkpoint)
    recipe = _recipe(family, twin) | {"substituted in": checkpoint.sha256}
    try:
        return published(family, recipe, lambda target: _substitute(Path(source.path), checkpoint, twin, target))
    except _Ambiguous:
        return export(twin)


def published(
    family: Family, recipe: dict[str, Any], write: Callable[[Path], dict[str, Any]], *, kind: str = "onnx",
    before: float | None = None,
) -> Artifact:  # fmt: skip
    """The folder of that recipe, from the cache if it was made before.

    Args:
        recipe: all that it is made of.
        write: makes its graphs in an empty folder, and says what else the manifest holds.
        kind: the artifact's format.
        before: seconds that went into what it is made of.
    """

    def build(draft: Path) -> None:
        started = time.perf_counter()
        manifest = recipe | write(draft) | {"seconds": (before or 0.0) + time.perf_counter() - started}
        (draft / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")

    key = hashlib.sha256(json.dumps(recipe, sort_keys=True).encode()).hexdigest()
    folder = cache.entry("exports", f"{family.id}-{key[:24]}", build, lambda there: (there / MANIFEST).is_file())
    return Artifact(family=family.id, path=str(folder), format=kind, export_seconds=_manifest(folder)["seconds"])


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def _recipe(family: Family, checkpoint: Checkpoint) -> dict[str, Any]:
    files = {
        Path(__file__),
        Path(onnx_tensors.__file__),
        Path(inspect.getfile(type(family))),
        *Path(inspect.getfile(Family)).parent.glob("*.py"),
    }
    source = b"".join(file.read_bytes() for file in sorted(files))
    return {
        "checkpoint": checkpoint.sha256,
        "family": family.id,
        "opset": OPSET,
        "packages": {name: version(name) for name in _PACKAGES},
        "source": hashlib.sha256(source).hexdigest(),
    }


def _export(family: Family, checkpoint: Checkpoint, target: Path) -> dict[str, Any]:
    """Write the graphs; which of their tensors are the model's weights goes into the manifest."""
    from assay.families.graphs import graphs

    described = family.describe(checkpoint.path)
    sample = accepted(described, family.inputs(described, family.sample, np.random.default_rng(0)))
    weights: set[str] = set()
    for name, graph in graphs(family, checkpoint.path, sample).items():
        program = exported(graph)
        _refuse_fixed(program, family, described)
        _strip(program)
        _save(program, target / f"{name}.onnx")
        weights |= graph.module.state_dict().keys() & {value.name for value in _weights(program)}
    return {"weights": sorted(weights)}


def exported(graph: Graph) -> Any:
    """The graph in ONNX, an `onnx_ir.Model`, with all that the exporter notes in it.

    Raises:
        NotExported: the exporter cannot.
    """
    import torch
    from transformers.exporters.exporter_onnx import OnnxConfig, OnnxExporter

    # AUTO and not DYNAMIC: an axis that the model's own arithmetic fixes is exported as fixed, not refused.
    shapes = {name: dict.fromkeys(axes, torch.export.Dim.AUTO) for name, axes in graph.dynamic.items()}
    config = OnnxConfig(dynamic=True, dynamic_shapes=shapes, optimize=False, opset_version=OPSET)
    try:
        # Tracing makes millions of objects that stay, among which the collector would look for garbage again and again.
        with torch.no_grad(), uncollected():
            return OnnxExporter().export(graph.module, graph.sample, config).program
    except Exception as error:
        raise NotExported(_cause(error)) from error


def _save(program: Any, file: Path) -> None:
    import onnx_ir

    onnx_ir.save(program, str(file), external_data=f"{file.name}.data")


class NotExported(Exception):
    """The exporter cannot, or what it made is not the model; the message is its own reason in one line."""


def _cause(error: BaseException) -> str:
    """The innermost error: what torch wraps around it tells how to report a bug, not what is wrong."""
    while inner := error.__cause__ or (None if error.__suppress_context__ else error.__context__):
        error = inner
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def _refuse_fixed(program: Any, family: Family, described: Config) -> None:
    """Refuse a graph that took the sample's length for the only one: a loop over it was unrolled."""
    shapes = {value.name: value.shape for value in program.graph.inputs}
    for workload in family.challenges:
        drawn = accepted(described, family.inputs(described, workload, np.random.default_rng(0)))
        for name, axes in family.dynamic.items():
            for axis, what in axes.items() if name in drawn and name in shapes else ():
                fixed = str(getattr(shapes[name][axis], "value", shapes[name][axis]))  # torch names a fixed axis "9"
                if fixed.isdigit() and int(fixed) != drawn[name].shape[axis]:
                    raise NotExported(f"the exporter fixed the {what} of {name} at {fixed}, that of its sample")


class _Ambiguous(Exception):
    """A tensor of the graph has no one place in the checkpoint."""


def _substitute(source: Path, checkpoint: Checkpoint, twin: Checkpoint, target: Path) -> dict[str, Any]:
    from assay.tensor_files import tensors

    own = Parameters(dict(tensors(checkpoint.path)))
    others = dict(tensors(twin.path))
    weights = frozenset(_manifest(source)["weights"])
    models = dict(graphs(source))
    replaced = []
    for each in (each for model in models.values() for each in held(model, source)):
        if each.array.dtype.kind != "f":
            continue  # an index that every checkpoint shares
        if found := own.find(each.array):
            replaced.append((each, _one_replacement(found, others)))
        elif each.proto.name in weights:
            raise _Ambiguous(each.proto.name)  # made of the checkpoint's tensors, and none of them
    for data in source.glob("*.data"):
        shutil.copyfile(data, target / data.name)
    for each, array in replaced:
        each.replace(array, target)
    for name, model in models.items():
        (target / name).write_bytes(model.SerializeToString())
    return {}


def _one_replacement(found: Sequence[tuple[str, bool]], others: Mapping[str, np.ndarray]) -> np.ndarray:
    candidates = [others[name].T if turned else others[name] for name, turned in found]
    if any(not np.array_equal(candidates[0], candidate) for candidate in candidates[1:]):
        raise _Ambiguous(found)
    return np.ascontiguousarray(candidates[0])


def _weights(program: Any) -> Iterator[Any]:
    for graph in program.graphs():
        yield from (value for value in graph.initializers.values() if value.const_value is not None)


def _strip(program: Any) -> None:
    """Drop the stack traces that the exporter leaves on every node: nine tenths of the file, and full of paths."""
    for node in program.graph.all_nodes():
        node.metadata_props.clear()
    for value in program.graph.initializers.values():
        value.metadata_props.clear()
    program.metadata_props.clear()
    program.graph.metadata_props.clear()
