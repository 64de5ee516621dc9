"""In-toto attestations: a statement for each judged cell of a matrix, signed if there is a key.

A statement is a function of its cell, which it holds: `assay.verification` writes it anew and compares.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from assay import report_files, signing
from assay.errors import UsageError, counted
from assay.files import write_atomically
from assay.matrix import MatrixCell
from assay.records import Record
from assay.report.selection import Selection
from assay.schema import SCHEMA_VERSION, CheckpointRef, Status, Verdict

STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATE = "https://in-toto.io/attestation/test-result/v0.1"
BUNDLE = "attestations.intoto.jsonl"
DIGEST = "assayCheckpointSha256"
"""The subject's algorithm: `assay.checkpoints.digest`, lowercase hex. It is not the SHA-256 of any one file."""
EVIDENCE = "evidence"

RESULTS: Mapping[Status, str] = {
    Status.REAL: "PASSED",
    Status.UNPROVEN: "WARNED",
    Status.INACCURATE: "FAILED",
    Status.FALLBACK: "FAILED",
    Status.MOCK: "FAILED",
    Status.FAILED: "FAILED",
}
"""The predicate's `result`. Where nothing was judged (UNAVAILABLE, PENDING) there is nothing to attest."""
_LISTS = {Verdict.PASSED: "passedTests", Verdict.NOT_JUDGED: "warnedTests", Verdict.FAILED: "failedTests"}


def attest(source: Path, folder: Path, selection: Selection, key: Path | None) -> tuple[Path, str]:
    """Write the statements of a matrix file as an in-toto bundle: JSON Lines, signed envelopes if there is a key.

    Returns:
        The file, and a line: how many statements, signed by which key, and which cells were left out.

    Raises:
        UsageError: the matrix or the key cannot be read, no cell can be attested, the folder cannot be written to.
    """
    matrix = selection.of(report_files.read_matrix(source))
    private = signing.private_key(key) if key else None
    cells = [cell for cell in matrix.cells if not unattestable(cell)]
    why = Counter(why for cell in matrix.cells if (why := unattestable(cell)))
    left_out = "; ".join(f"{counted(number, 'cell')} left out: {reason}" for reason, number in why.items())
    if not cells:
        raise UsageError(f"{source}: nothing to attest; {left_out or 'it has no cell'}")
    statements = [_line(statement(cell)) for cell in cells]
    lines = [_line(private.seal(each)) for each in statements] if private else statements
    path = folder / BUNDLE
    try:
        write_atomically(path, b"".join(line + b"\n" for line in lines))
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from error
    signed = f"signed by {private.id}" if private else "not signed: --key signs them"
    return path, "; ".join(filter(None, (f"{counted(len(lines), 'statement')}, {signed}", left_out)))


def unattestable(cell: MatrixCell) -> str | None:
    """Why there is no statement of a cell."""
    if cell.status not in RESULTS:
        return f"{cell.status}, which is no verdict"
    if cell.checkpoint is None:
        return f"{cell.status}, of a checkpoint that is not known, so that there is no subject"
    return None if cell.session else f"{cell.status}, of a session that is not known"


def statement(cell: MatrixCell) -> dict[str, Any]:
    """The in-toto statement of a judged cell, with predicate test-result, as JSON's types."""
    assert cell.checkpoint
    return {
        "_type": STATEMENT,
        "subject": [_subject(cell.checkpoint)],
        "predicateType": PREDICATE,
        "predicate": {
            "result": RESULTS[cell.status],
            "configuration": [_evidence(cell), _machine(cell), *_software(cell)],
            **tests(cell),
        },
    }


def _subject(checkpoint: CheckpointRef) -> dict[str, Any]:
    subject: dict[str, Any] = {"name": checkpoint.name, "digest": {DIGEST: checkpoint.sha256}}
    if checkpoint.revision:
        subject["uri"] = f"pkg:huggingface/{quote(checkpoint.name)}@{quote(checkpoint.revision, safe='')}"
    return subject


def _evidence(cell: MatrixCell) -> dict[str, Any]:
    """The evidence, and for policies where the cell stands and what it is."""
    about = {
        "family": cell.family, "backend": cell.backend, "size": cell.size, "precision": str(cell.precision),
        "device": cell.device, "status": str(cell.status),
    }  # fmt: skip
    found = {f"assay_{name}": value for name, value in about.items() if value is not None}
    return _descriptor(EVIDENCE, content(cell)) | {"annotations": found}


def _machine(cell: MatrixCell) -> dict[str, Any]:
    assert cell.session
    threads = cell.session.environment.threads
    return _descriptor("machine", _canonical(_recorded(cell.session.machine) | {"threads": threads}))


def _software(cell: MatrixCell) -> Iterator[dict[str, str]]:
    """Package URLs: what the environment holds, and what the runner used of it."""
    assert cell.session
    environment = cell.session.environment
    yield {"name": "python", "uri": f"pkg:generic/python@{quote(environment.python, safe='')}"}
    packages = {**environment.packages, **cell.software, "assay": environment.assay}
    for name, version in sorted(packages.items()):
        normal = quote(re.sub(r"[-_.]+", "-", name).lower())
        yield {"name": name, "uri": f"pkg:pypi/{normal}@{quote(version, safe='')}"}


def tests(cell: MatrixCell) -> dict[str, list[str]]:
    """Each check as `layer.check`, in the list of its verdict; a layer that was not judged as a whole as `layer`."""
    found: dict[str, list[str]] = {name: [] for name in _LISTS.values()}
    for evidence in cell.evidence:
        for check in evidence.checks:
            found[_LISTS[check.verdict]].append(f"{evidence.layer}.{check.name}")
        if evidence.not_judged is not None or not evidence.checks:
            found[_LISTS[Verdict.NOT_JUDGED]].append(str(evidence.layer))
    if cell.failure:
        found[_LISTS[Verdict.FAILED]].append(f"{cell.failure.role}.{cell.failure.phase}")
    return found


def content(cell: MatrixCell) -> bytes:
    """The whole cell: canonical JSON of a matrix of it alone, which every command that reads a matrix reads."""
    return _canonical({"schema_version": SCHEMA_VERSION, "cells": [_recorded(cell)]})


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _descriptor(name: str, text: bytes) -> dict[str, Any]:
    return {
        "name": name, "digest": {"sha256": hashlib.sha256(text).hexdigest()},
        "content": base64.standard_b64encode(text).decode(), "mediaType": "application/json",
    }  # fmt: skip


def _recorded(value: Any) -> Any:
    """A record as JSON's types, without what was derived, and without defaults.

    A newer assay has more fields, which older evidence left at their defaults: it writes that evidence the same.
    """
    if isinstance(value, Record):
        fields = type(value).model_fields
        return {
            name: _recorded(each) for name, each in value
            if each != fields[name].get_default(call_default_factory=True, validated_data={})
        }  # fmt: skip
    if isinstance(value, Mapping):
        return {name: _recorded(each) for name, each in value.items()}
    return [_recorded(each) for each in value] if isinstance(value, (list, tuple)) else value


def _line(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()
