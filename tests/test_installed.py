"""Used files beside install records: what was changed, added, patched, and what no record can speak for."""

from __future__ import annotations

import base64
import hashlib
import json
import sysconfig
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import pytest

from assay.installed import OWN, Findings, Installation

VERSION = "1.5"


def install(site: Path, name: str, files: dict[str, str], *, record: bool = True, editable: str | None = None) -> None:
    """What an installer leaves behind."""
    info = site / f"{name}-{VERSION}.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {VERSION}\n")
    lines = [f"{info.name}/RECORD,,"]
    for path, text in files.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text)
        digest = base64.urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).rstrip(b"=").decode()
        lines.append(f"{path},sha256={digest},{len(text)}")
    if record:
        (info / "RECORD").write_text("\n".join(lines) + "\n")
    if editable:
        (info / "direct_url.json").write_text(json.dumps({"url": editable, "dir_info": {"editable": True}}))


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """An environment with a runtime and a backend's own package."""
    folder = tmp_path / "site"
    install(folder, "runtime", {"runtime/__init__.py": "one", "runtime/core.py": "two", "runtime/libruntime.so": "so"})
    install(folder, "plugin", {"plugin.py": "three"})
    return folder


def compared(
    site: Path, *files: Path, libraries: tuple[str, ...] = (), code: dict[Path, list[str]] | None = None
) -> Findings:
    """Of the runtime, the plugin, and further files, named as modules by their path."""
    used = [site / "runtime/__init__.py", site / "runtime/core.py", site / "plugin.py", *files]
    modules = {
        ".".join(file.relative_to(file.parents[1]).with_suffix("").parts).replace(".__init__", "").replace("site.", ""):
        str(file) for file in used
    }  # fmt: skip
    return Installation([str(site)]).compare(
        modules, (str(site / "runtime/libruntime.so"), *libraries),
        {str(file): places for file, places in (code or {}).items()},
        backend=str(site / "plugin.py"), runtimes=("libruntime",),
    )  # fmt: skip


def test_files_as_they_were_installed(site: Path) -> None:
    assert compared(site) == Findings(
        served={"plugin": VERSION, "runtime": VERSION}, compared=4,
        modified=[], unrecorded=[], patched=[], open=[],
    )  # fmt: skip


@pytest.mark.parametrize("text", ["TWO", "longer than it was"])
@pytest.mark.parametrize("file", ["runtime/core.py", "runtime/libruntime.so"])
def test_an_edited_file_is_named(site: Path, file: str, text: str) -> None:
    (site / file).write_text(text)
    assert compared(site).modified == [str(site / file)]


def test_a_file_that_has_gone_is_named_and_so_is_one_that_was_replaced_while_it_was_mapped(site: Path) -> None:
    (site / "runtime/core.py").unlink()
    mapped = str(site / "runtime/libruntime.so")
    found = compared(site, libraries=(f"{mapped} (deleted)",))
    assert found.modified == [str(site / "runtime/core.py"), mapped]


def test_a_file_that_was_not_used_does_not_matter(site: Path) -> None:
    install(site, "other", {"other.py": "four"})
    (site / "other.py").write_text("five")
    assert not compared(site).modified


def test_files_beside_those_of_a_record_are_named(site: Path) -> None:
    for name in ("runtime/extra.py", "runtime/libfast.so"):
        (site / name).write_text("new")
    found = compared(site, site / "runtime/extra.py", libraries=(str(site / "runtime/libfast.so"),))
    assert found.unrecorded == [str(site / "runtime/extra.py"), str(site / "runtime/libfast.so")]


def test_a_stub_that_stands_before_the_runtime_is_named(site: Path, tmp_path: Path) -> None:
    stub = tmp_path / "stub" / "runtime"
    stub.mkdir(parents=True)
    (stub / "__init__.py").write_text("def run(): ...")
    assert compared(site, stub / "__init__.py").unrecorded == [str(stub / "__init__.py")]


def test_a_runtime_s_library_from_elsewhere_is_named_and_the_system_s_are_not(site: Path, tmp_path: Path) -> None:
    libraries = (str(tmp_path / "libruntime_cpu.so.2"), "/usr/lib/libm.so.6")
    assert compared(site, libraries=libraries).unrecorded == [libraries[0]]


def test_links_to_a_store_are_followed(site: Path, tmp_path: Path) -> None:
    library = site / "runtime/libruntime.so"
    stored = library.rename(tmp_path / "stored.so")
    library.symlink_to(stored)
    assert compared(site, libraries=(str(stored),)).modified == []


def test_what_has_no_record_is_not_judged_by_name(site: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    install(site, "debian", {"debian/core.py": "six"}, record=False)
    install(site, "edited", {}, editable=source.as_uri())
    install(site, "bare", {})
    for file in (source / "edited/core.py", tmp_path / "stray/stray.py"):
        file.parent.mkdir(parents=True)
        file.write_text("seven")
    found = compared(site, site / "debian/core.py", source / "edited/core.py", tmp_path / "stray/stray.py")
    assert (found.modified, found.unrecorded) == ([], [])
    assert found.open == [
        f"{tmp_path}/stray/stray.py belongs to no installed distribution",
        "debian was installed without a record of its files",
        f"edited is installed editable, from {source}, so no record says what its files should be",
    ]


def test_what_was_compiled_here_is_not_judged_by_name(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASSAY_CACHE", str(tmp_path / "cache"))
    kernel, stray = tmp_path / "cache/compiled/torch-0/ab/kernel.py", tmp_path / "cache/kernel.py"
    found = Installation([str(site)]).compare(
        {"runtime.tasks.kernel": str(kernel), "runtime.tasks.stray": str(stray)}, (), {},
        backend=str(site / "plugin.py"), runtimes=(),
    )  # fmt: skip
    assert found.open == ["no install record can say what code should be that was compiled here"]
    assert found.unrecorded == [str(stray)]


def test_a_record_without_hashes_is_not_judged(site: Path) -> None:
    (site / f"plugin-{VERSION}.dist-info/RECORD").write_text("plugin.py,,\n")
    assert compared(site).open == ["the install record of plugin has no hash for a used file"]


def test_what_broken_installations_left_is_no_error(site: Path) -> None:
    (site / "aborted-1.dist-info").mkdir()
    install(site, "damaged", {})
    info = site / f"damaged-{VERSION}.dist-info"
    (info / "RECORD").write_text("damaged.py\n\ndamaged/a.py,sha256=AAAA,many\n")
    (info / "direct_url.json").write_text("{")
    assert compared(site).compared == 4


def test_assay_and_python_itself_are_not_what_served(site: Path) -> None:
    standard = Path(sysconfig.get_paths()["stdlib"]) / "json/__init__.py"
    assert compared(site, Path(OWN) / "cell.py", standard) == compared(site)


def test_code_of_the_backend_or_of_nobody_in_the_runtime_is_named(site: Path, tmp_path: Path) -> None:
    stray = tmp_path / "stray.py"
    code = {site / "plugin.py": ["runtime:run", "plugin:run"], stray: ["runtime.core:Core.compile"]}
    # As `_named` would have it, the runtime's own code may stand in the plugin.
    code[site / "runtime/core.py"] = ["plugin:Core"]
    assert compared(site, site / "runtime/core.py", code=code).patched == [
        f"runtime.core.Core.compile (from {stray})",
        f"runtime.run (from {site / 'plugin.py'})",
    ]


def test_a_preloaded_library_is_named(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/opt/libfaster.so")
    assert compared(site).open == ["LD_PRELOAD puts /opt/libfaster.so before every library"]


def test_records_count_as_they_were_when_they_were_read(site: Path) -> None:
    installation, core = Installation([str(site)]), site / "runtime/core.py"
    installation.read()
    (site / f"runtime-{VERSION}.dist-info" / "RECORD").write_text("")
    core.write_text("other")
    found = installation.compare({"runtime.core": str(core)}, (), {}, backend=str(site / "plugin.py"), runtimes=())
    assert found.modified == [str(core)]


def test_each_file_is_hashed_once_whoever_asks(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    core, hashed, digest = site / "runtime/core.py", [], hashlib.file_digest

    def slow(stream: BinaryIO, algorithm: str) -> object:
        hashed.append(stream.name)
        time.sleep(0.02)
        return digest(stream, algorithm)  # type: ignore[arg-type]

    monkeypatch.setattr(hashlib, "file_digest", slow)
    installation = Installation([str(site)])

    def compare(_: int) -> Findings:
        return installation.compare({"runtime.core": str(core)}, (), {}, backend=str(site / "plugin.py"), runtimes=())

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(compare, range(4)))
    assert hashed == [str(core)]
    assert [each.compared for each in found] == [1] * 4
