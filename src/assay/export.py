"""`assay export`: a matrix in the formats that other programs read, each in files of fixed names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path

from assay.errors import UsageError, unknown
from assay.files import write_atomically
from assay.matrix import Matrix
from assay.report_files import read_matrix

FORMATS: Mapping[str, str] = {
    "junit": "junit:files",
    "github-benchmark": "github_benchmark:files",
    "bencher": "bencher:files",
    "pytorch": "pytorch_benchmark:files",
    "csv": "table:csv_files",
    "parquet": "table:parquet_files",
    "badges": "badges:files",
}
"""Each is a function of a module of `assay.report`: from a matrix to contents by file name."""


def export(name: str, source: Path, folder: Path) -> list[Path]:
    """Write a matrix file in a format.

    Returns:
        The files that were written.

    Raises:
        UsageError: there is no such format, the matrix cannot be read, the folder cannot be written to, or what the
            format needs is not installed.
    """
    if name not in FORMATS:
        raise unknown("format", name, FORMATS)
    return write(name, read_matrix(source), folder)


def write(name: str, matrix: Matrix, folder: Path) -> list[Path]:
    """Write the files of a format into a folder."""
    module, _, function = FORMATS[name].partition(":")
    files: Callable[[Matrix], Mapping[str, str | bytes]] = getattr(import_module(f"assay.report.{module}"), function)
    written = []
    for path, content in files(matrix).items():
        try:
            write_atomically(folder / path, content)
        except OSError as error:
            raise UsageError(f"{folder / path}: cannot be written: {error.strerror}") from error
        written.append(folder / path)
    return written
