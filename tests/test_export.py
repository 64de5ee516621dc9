"""`assay export` and what `assay merge` writes beside the matrix."""

from __future__ import annotations

from pathlib import Path

import pytest

from assay.cli import main
from assay.export import FORMATS
from tests import strategies as make


@pytest.fixture
def matrix(tmp_path: Path) -> Path:
    path = tmp_path / "matrix.json"
    path.write_text(make.full_matrix().model_dump_json(), encoding="utf-8")
    return path


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_writes_its_files_and_says_which(
    name: str, matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", name, str(matrix), "--output", str(tmp_path / "out")]) == 0
    written = {Path(line) for line in capsys.readouterr().out.splitlines()}
    assert written == {path for path in (tmp_path / "out").rglob("*") if path.is_file()} != set()


def test_help_lists_every_format(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["export", "--help"])
    said = capsys.readouterr().out
    assert all(name in said for name in FORMATS)


def test_a_mistake_is_one_line(matrix: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    for arguments, said in (
        (["junitt", str(matrix)], "unknown format 'junitt'; did you mean junit?"),
        (["junit", str(tmp_path / "none.json")], "none.json: no such file"),
        (["junit", str(matrix), "--output", str(tmp_path / "file")], "file/junit.xml: cannot be written"),
    ):
        assert main(["export", *arguments]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert said in line


def test_merge_writes_what_export_does(tmp_path: Path) -> None:
    (tmp_path / "sessions").mkdir()
    (tmp_path / "sessions" / "s1.json").write_text(make.report(make.cell()).model_dump_json(), encoding="utf-8")
    assert main(["merge", str(tmp_path / "sessions"), "--output", str(tmp_path)]) == 0
    merged = (tmp_path / "junit.xml").read_text(encoding="utf-8")
    assert main(["export", "junit", str(tmp_path / "matrix.json"), "--output", str(tmp_path / "again")]) == 0
    assert merged == (tmp_path / "again" / "junit.xml").read_text(encoding="utf-8")
