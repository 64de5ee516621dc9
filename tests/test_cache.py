"""What is kept: found, listed, pruned and cleared, and never a file that assay did not make."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from assay import cache, cli
from assay.errors import UsageError
from tests import strategies as make

DAY = 86_400
NAMES = {"checkpoints": "bert-tiny-0-{:016x}", "twins": "bert-{:016x}", "exports": "bert-{:024x}"}


@pytest.fixture(autouse=True)
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache."""
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("ASSAY_CACHE_SIZE", raising=False)
    return tmp_path / "cache"


def kept(kind: cache.Kind, number: int, *, size: int = 1000, age: float = 0.0) -> Path:
    """An entry of `size` bytes that was last used `age` seconds ago."""

    def build(draft: Path) -> None:
        (draft / cache.MARKERS[kind]).write_text("{}")
        (draft / "weights").write_bytes(bytes(size - 2))

    path = cache.entry(kind, NAMES[kind].format(number), build, lambda _: True)
    used = time.time() - age
    os.utime(path, (used, used))
    return path


def files(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*")}


# Where, and how much


def test_the_cache_can_be_put_elsewhere(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    assert cache.cache_dir() == folder
    monkeypatch.delenv("ASSAY_CACHE")
    assert cache.cache_dir().name == "assay"


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("512", 512), ("500M", 500 * 2**20), ("20G", 20 * 2**30), ("1.5g", 3 * 2**29), ("2 TiB", 2 * 2**40),
     ("3KB", 3072), (" 7B ", 7)],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert cache.parse_size(text, "--to") == size


@pytest.mark.parametrize("text", ["", "many", "-1G", "20X", "1e3", "G", "20G!", "nan", "1,5G"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"^--to takes a size such as 500M or 20G, not "):
        cache.parse_size(text, "--to")


def test_the_cap_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache.cap() == cache.CAP
    monkeypatch.setenv("ASSAY_CACHE_SIZE", "3G")
    assert cache.cap() == 3 * 2**30


# Entries


def test_entries_are_listed_by_their_last_use() -> None:
    old, new = kept("twins", 1, age=50), kept("exports", 2, size=70, age=5)
    found = cache.entries()
    assert [(each.kind, each.path, each.size) for each in found] == [("exports", new, 70), ("twins", old, 1000)]
    assert found[0].used - found[1].used == pytest.approx(45, abs=1)


def test_finding_an_entry_is_using_it() -> None:
    first, second = kept("exports", 1, age=50), kept("exports", 2, age=40)
    cache.entry("exports", first.name, lambda _: pytest.fail("it is there"), lambda _: True)
    assert [each.path for each in cache.entries()] == [first, second]


def test_an_entry_that_is_only_to_be_found_is_not_made() -> None:
    first = kept("exports", 1)
    with cache.only_finding("exports"):
        assert cache.entry("exports", first.name, lambda _: pytest.fail("it is there"), lambda _: True) == first
        with pytest.raises(cache.Missing):
            kept("exports", 2)
        kept("twins", 3)
    kept("exports", 2)


def test_a_damaged_entry_is_made_again() -> None:
    path = kept("exports", 1)
    (path / "weights").write_bytes(b"damaged")

    def build(draft: Path) -> None:
        (draft / "export.json").write_text("{}")
        (draft / "weights").write_bytes(b"whole")

    cache.entry("exports", path.name, build, lambda there: (there / "weights").read_bytes() != b"damaged")
    assert (path / "weights").read_bytes() == b"whole"
    assert [each.name for each in path.parent.iterdir()] == [path.name]


# Pruning


def test_pruning_removes_what_was_used_longest_ago() -> None:
    oldest, newest, middle = (kept("exports", number, age=age) for number, age in enumerate((30, 10, 20)))
    assert cache.prune(3000) == []
    assert [each.path for each in cache.prune(2999)] == [oldest]
    assert [each.path for each in cache.prune(1000)] == [middle]
    assert files(newest.parent) == {Path(newest.name), Path(newest.name, "export.json"), Path(newest.name, "weights")}


def test_a_session_prunes_nothing_that_it_used(monkeypatch: pytest.MonkeyPatch) -> None:
    before, used = kept("exports", 1, age=100), kept("exports", 2, age=10)
    (line,) = cache.enforce(0, started=time.time() - 50)
    assert line.startswith("the cache held more than 0 B: removed 1 entry (1,000 B), longest unused: ")
    assert before.name in line and used.name not in line
    assert [each.path for each in cache.entries()] == [used]
    assert list(cache.enforce(0, started=time.time() - 50)) == []


def test_nothing_is_pruned_while_another_session_runs(folder: Path) -> None:
    path = kept("exports", 1, age=100)
    code = "import sys; from assay import cache\nwith cache.held(): print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as session:
        assert session.stdin is not None and session.stdout is not None
        assert session.stdout.readline() == b"held\n"
        for remove in (lambda: cache.prune(0), cache.clear):
            with pytest.raises(cache.InUse, match="a session is using the cache; try again when it has ended"):
                remove()
        assert list(cache.enforce(0, started=time.time())) == []
        with cache.held():  # sessions do not keep each other waiting
            session.stdin.close()
            session.wait()
    assert path.is_dir()
    assert [each.path for each in cache.prune(0)] == [path]


def test_an_entry_is_whole_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    path = kept("exports", 1)
    seen = []

    def rmtree(target: Path, **settings: object) -> None:
        seen.append((target.parent == path.parent, path.exists(), sorted(each.name for each in target.iterdir())))

    monkeypatch.setattr("shutil.rmtree", rmtree)  # as if the process were killed there
    cache.prune(0)
    assert seen == [(True, False, ["export.json", "weights"])]
    assert cache.entries() == []


def test_drafts_are_pruned_once_nobody_writes_them_any_more(folder: Path) -> None:
    path = kept("exports", 1)
    fresh, stale = (path.with_name(f".{path.name}.{end}") for end in ("abcd_123", "deadbeef"))
    for draft in (fresh, stale):
        draft.mkdir()
        (draft / "model.onnx").write_bytes(b"half")
    os.utime(stale, (time.time() - DAY - 1,) * 2)
    assert cache.prune(cache.CAP) == []
    assert (path.is_dir(), fresh.is_dir(), stale.is_dir()) == (True, True, False)
    cache.clear()
    assert files(folder) == set()


def test_what_assay_did_not_make_stays(folder: Path) -> None:
    entry = kept("checkpoints", 1)
    theirs = [
        "notes.txt", "checkpoints/my-bert/model.safetensors", "exports/README", "other/t5-0123456789abcdef/assay.json",
        f"checkpoints/{entry.name[:-1]}0/model.safetensors",  # named as ours, without our seal
        "checkpoints/mine/assay.json", "twins/.hidden/weights",
    ]  # fmt: skip
    for name in theirs:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("precious")
    (folder / "twins" / NAMES["twins"].format(7)).symlink_to(entry)
    before = files(folder)
    assert [each.path for each in cache.clear()] == [entry]
    assert before - files(folder) == {path for path in before if path.parts[:2] == ("checkpoints", entry.name)}


# The command


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(["cache", *arguments])
    return (code, *capsys.readouterr())


def test_the_list(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    path = kept("exports", 1, size=2048)
    os.utime(path, (1.7e9, 1.7e9))
    kept("twins", 2)
    code, out, err = run(capsys)
    assert (code, err) == (0, "")
    first, second, total = out.splitlines()
    assert first.startswith(f"twins        {NAMES['twins'].format(2)}")
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(1.7e9))
    assert second == f"exports      {path.name}  2.00 KiB  {when}"
    assert total == f"2 entries (2.98 KiB) kept, at most 40.0 GiB, in {folder}"


def test_an_empty_cache_is_no_error(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    assert run(capsys) == (0, f"0 entries (0 B) kept, at most 40.0 GiB, in {folder}\n", "")
    assert not folder.exists()
    assert run(capsys, "clear")[0] == 0


def test_pruning_and_clearing(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(4):
        kept("exports", number, age=10 - number)
    assert run(capsys, "prune")[1].startswith("removed 0 entries (0 B)\n4 entries (")
    assert "removed 1 entry (1,000 B)\n3 entries (2.93 KiB) kept" in run(capsys, "prune", "--to", "3K")[1]
    monkeypatch.setenv("ASSAY_CACHE_SIZE", "2K")
    _, out, _ = run(capsys, "prune")
    assert f"{NAMES['exports'].format(1)}" in out and "2 entries (1.95 KiB) kept, at most 2.00 KiB" in out
    assert "removed 2 entries" in run(capsys, "clear")[1]
    assert cache.entries() == []


def test_what_is_made_apart_is_used_once(folder: Path) -> None:
    there = kept("twins", 1)
    with cache.scratch() as scratch:
        with cache.making_in(scratch):
            assert kept("twins", 1) == there  # what is kept is found
            apart = kept("exports", 2)
        assert apart.is_relative_to(scratch) and scratch.is_relative_to(folder) and (apart / "export.json").is_file()
        assert [each.path for each in cache.entries()] == [there]
        assert kept("exports", 2).parent == folder / "exports"  # made again, outside of the block
    assert not scratch.exists()


def test_what_a_killed_session_made_apart_goes_a_day_later() -> None:
    with cache.scratch() as scratch:
        with cache.making_in(scratch):
            kept("exports", 2)
        cache.prune(cache.CAP)
        assert scratch.is_dir()
        yesterday = time.time() - 90_000
        os.utime(scratch, (yesterday, yesterday))
        cache.prune(cache.CAP)
        assert not scratch.exists()


def test_the_same_for_a_program(capsys: pytest.CaptureFixture[str], folder: Path) -> None:
    old, new = kept("exports", 1, age=10), kept("twins", 2)
    os.utime(new, (1.8e9, 1.8e9))
    os.utime(old, (1.7e9, 1.7e9))
    record = {"kind": "twins", "name": new.name, "size": 1000, "used": "2027-01-15T08:00:00.000+00:00"}
    other = {"kind": "exports", "name": old.name, "size": 1000, "used": "2023-11-14T22:13:20.000+00:00"}
    whole = {"folder": str(folder), "cap": cache.CAP, "total": 2000, "kept": [record, other], "removed": []}
    assert json.loads(run(capsys, "--json")[1]) == whole
    pruned = whole | {"total": 1000, "kept": [record], "removed": [other]}
    assert json.loads(run(capsys, "prune", "--to", "1000", "--json")[1]) == pruned


@pytest.mark.parametrize(
    ("arguments", "size", "words"),
    [
        (("cache", "prun"), "", "unknown action 'prun'; did you mean prune?"),
        (("cache", "prune", "--to", "lots"), "", "--to takes a size such as 500M or 20G, not 'lots'"),
        (("cache", "clear", "--to", "1G"), "", "--to goes with `assay cache prune`"),
        (("cache",), "lots", "$ASSAY_CACHE_SIZE takes a size such as 500M or 20G, not 'lots'"),
        (("run", "--backend", "cpu"), "lots", "$ASSAY_CACHE_SIZE takes a size such as 500M or 20G, not 'lots'"),
    ],
)  # fmt: skip
def test_mistakes(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: tuple[str, ...],
    size: str, words: str,
) -> None:  # fmt: skip
    path = kept("exports", 1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ASSAY_CACHE_SIZE", size)
    assert cli.main(arguments) == 2
    assert capsys.readouterr() == ("", f"assay: error: {words}\n")
    assert path.is_dir()


def test_a_cache_that_cannot_be_made_is_a_mistake(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "file" / "cache"))
    assert cli.main(["run", "--backend", "cpu", "--reports", str(tmp_path / "reports")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"assay: error: {tmp_path / 'file' / 'cache'}: cannot be used as the cache: ")


# The end of a session


def test_a_session_keeps_the_cap(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    unused = kept("exports", 1, age=5)
    used: list[Path] = []

    def run_session(*arguments: object, **settings: object) -> object:
        with pytest.raises(cache.InUse):
            cache.prune(0)
        used.append(kept("exports", 2))
        return make.report(make.cell())

    monkeypatch.setattr("assay.session.run_session", run_session)
    command = ["run", "--backend", "cpu", "--reports", str(tmp_path / "reports")]
    monkeypatch.setenv("ASSAY_CACHE_SIZE", "2000")
    assert cli.main(command) == 0
    assert "removed" not in capsys.readouterr().err
    monkeypatch.setenv("ASSAY_CACHE_SIZE", "500")
    assert cli.main(command) == 0
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "removed" in line]
    assert line.startswith("assay: the cache held more than 500 B: removed 1 entry (1,000 B), longest unused: ")
    assert [each.path for each in cache.entries()] == used[:1] and not unused.exists()
