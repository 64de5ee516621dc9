"""Check what the main job left: forty cells, every one of them REAL, or UNAVAILABLE for want of a CUDA device."""

from __future__ import annotations

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

FAMILIES = {
    "bert", "clip", "llama", "t5", "wav2vec2", "whisper", "xclip", "clap", "sentence-embeddings", "language-model",
}  # fmt: skip
EXPECTED = {"cpu": {"REAL"}, "cuda": {"REAL", "UNAVAILABLE"}, "openvino": {"REAL"}, "onnxruntime": {"REAL"}}


def faults(matrix: dict[str, Any]) -> list[str]:
    """What is not as it must be, a line each."""
    cells = matrix["cells"]
    counted = Counter((cell["family"], cell["backend"]) for cell in cells)
    wanted = {(family, backend) for family in FAMILIES for backend in EXPECTED}
    found = [f"no cell {family} on {backend}" for family, backend in sorted(wanted - set(counted))]
    found += [f"{number} cells {family} on {backend}" for (family, backend), number in counted.items() if number > 1]
    found += [f"an unexpected cell {family} on {backend}" for family, backend in sorted(set(counted) - wanted)]
    found += [
        f"{cell['family']} on {cell['backend']} is {cell['status']}: {cell['reason']}"
        for cell in cells
        if cell["status"] not in EXPECTED.get(cell["backend"], ())
    ]
    cuda = {cell["status"] for cell in cells if cell["backend"] == "cuda"}
    if len(cuda) > 1:
        found.append(f"the cuda column is neither all REAL nor all UNAVAILABLE: {', '.join(sorted(cuda))}")
    return found


def main() -> int:
    """Print the faults of the matrix that the first argument names, or the count of its statuses."""
    matrix = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    found = faults(matrix)
    statuses = Counter(cell["status"] for cell in matrix["cells"])
    print(", ".join(f"{number} {status}" for status, number in statuses.most_common()), "of", len(matrix["cells"]))
    for fault in found:
        print(f"  {fault}", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
