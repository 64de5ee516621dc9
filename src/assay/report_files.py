"""Reading session reports, matrices and lists of known failures: whatever is not one is refused by name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import from_json

from assay.errors import UsageError
from assay.known_failures import KnownFailures
from assay.matrix import Matrix
from assay.schema import SCHEMA_VERSION
from assay.session_report import SessionReport

_KINDS = {"planned": "session report", "known_failures": "list of known failures", "cells": "matrix"}
"""What a file is, by the first of these keys that it has."""

_T = TypeVar("_T", SessionReport, Matrix, KnownFailures)


@dataclass(frozen=True, order=True)
class Problem:
    """A file that was not merged, and why."""

    path: Path
    reason: str

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


class Unreadable(Exception):
    """A file that is not what it should be; one clear line."""


def read(paths: Iterable[Path]) -> tuple[list[SessionReport], list[Problem]]:
    """Every session report in these files and folders, and every file that is none.

    Args:
        paths: files, and folders whose `*.json` are read.
    """
    reports: list[SessionReport] = []
    problems: list[Problem] = []
    for path in _files(paths):
        try:
            reports.append(load(path, SessionReport))
        except Unreadable as error:
            problems.append(Problem(path, str(error)))
    return reports, problems


def read_matrix(path: Path) -> Matrix:
    """A merged matrix; its statuses are concluded anew.

    Raises:
        UsageError: the file is not there, or no matrix.
    """
    if not path.exists():
        raise UsageError(f"{path}: no such file; `assay merge` writes it")
    try:
        return load(path, Matrix)
    except Unreadable as error:
        raise UsageError(f"{path}: {error}") from error


def is_matrix(path: Path) -> bool:
    """Whether a file says that it is a matrix; it may still be a bad one."""
    try:
        return _kind(_json(path)) == _KINDS["cells"]
    except Unreadable:
        return False


def _files(paths: Iterable[Path]) -> list[Path]:
    found = [file for path in paths for file in (sorted(path.glob("*.json")) if path.is_dir() else [path])]
    return list({file.resolve(): file for file in reversed(found)}.values())[::-1]


def load(path: Path, model: type[_T]) -> _T:
    """The record in a file.

    Raises:
        Unreadable: it cannot be read, is foreign, newer, or of another kind.
    """
    return parse(_json(path), model)


def parse(data: Any, model: type[_T]) -> _T:
    """The record in parsed JSON; raises as `load` does."""
    _recognise(data, model)
    try:
        return model.model_validate(data)
    except ValidationError as error:
        raise Unreadable(_explain(error)) from error


def _json(path: Path) -> Any:
    try:
        return from_json(path.read_bytes().decode())
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise Unreadable("is not UTF-8 text") from error
    except ValueError as error:
        raise Unreadable(f"is not JSON, or was cut off: {error}") from error


def _recognise(data: Any, model: type[SessionReport | Matrix | KnownFailures]) -> None:
    """Refuse foreign files and newer versions before looking further: their errors would only confuse."""
    wanted = next(kind for key, kind in _KINDS.items() if key in model.model_fields)
    if not isinstance(data, Mapping) or "schema_version" not in data:
        raise Unreadable(f"is not a {wanted} of assay: it has no schema_version")
    version = data["schema_version"]
    if not isinstance(version, int) or isinstance(version, bool):
        raise Unreadable(f"schema_version: should be a whole number, not {json.dumps(version)[:40]}")
    if version > SCHEMA_VERSION:
        raise Unreadable(
            f"schema_version {version} is newer than this assay reads ({SCHEMA_VERSION}); update assay to merge it"
        )
    found = _kind(data)
    if found != wanted:
        raise Unreadable(f"is not a {wanted}" + (f" but a {found}" if found else ""))


def _kind(data: Any) -> str | None:
    return next((kind for key, kind in _KINDS.items() if key in data), None) if isinstance(data, Mapping) else None


def _explain(error: ValidationError) -> str:
    """The first error with its dotted path, and how many more there are."""
    first, *more = error.errors(include_url=False, include_input=False)
    path = ""
    for part in first["loc"]:
        path += f"[{part}]" if isinstance(part, int) else f".{part}"
    text = {"extra_forbidden": "unknown key", "missing": "missing"}.get(first["type"], first["msg"])
    suffix = f" (and {len(more)} more)" if more else ""
    return f"{path.lstrip('.')}: {text.removeprefix('Value error, ')}{suffix}"
