"""Provenance: **by what** software?

Files that the runner used, modules that it had imported and libraries that the kernel had mapped, against the records
that their installers left; code and mocks that stand where they were not installed. The runner says what it used, the
parent reads the records and hashes the files.

What this cannot see. The runner's list is made by assay's code inside the judged process, so whoever rewrites that code
at run time can shorten it; so can one who restores a file after it was loaded, or unmaps a library before the end. A
cached bytecode file is not hashed, its source is. A record is as honest as whoever wrote it: a package that was forged
together with its RECORD is intact. Code that was made at run time names no file, and tables inside a runtime are not
searched for patches. Python itself, the system's libraries and drivers have no record.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from assay.errors import listed
from assay.schema import Check, Evidence, Layer, Status

if TYPE_CHECKING:
    from assay.evidence.case import Case, Software

CONSEQUENCES: Mapping[str, Status] = {
    "modified": Status.UNPROVEN,
    "unrecorded": Status.UNPROVEN,
    "patched": Status.UNPROVEN,
    "mocks": Status.UNPROVEN,
}


def judge(case: Case) -> Evidence:
    """Whether the runtime is as it was installed, and nothing stands in its place."""
    software = case.software
    findings = software.findings
    names = ", ".join(f"{name} {version}" for name, version in findings.served.items())
    return Evidence(
        layer=Layer.PROVENANCE,
        checks=(
            _count(
                "modified", findings.modified, "used files that are not as they were installed",
                f"all of {findings.compared} used files are as they were installed: {names}",
            ),
            _count(
                "unrecorded", findings.unrecorded, "used files that no installer put where they are",
                "no used file of an installed package is missing in its install record",
            ),
            _count(
                "patched", findings.patched, "attributes of modules that hold code from elsewhere",
                "all code in modules comes from installed packages",
            ),
            _count(
                "mocks", software.mocks, "objects of unittest.mock in the engine or in modules",
                "no object of unittest.mock is in the engine or in modules",
            ),
        ),
        not_judged="; ".join(_open(software)) or None,
    )  # fmt: skip


def _count(name: str, found: Sequence[str], what: str, none: str) -> Check:
    return Check(name=name, value=len(found), bound=0, text=f"{what}: {listed(found)}" if found else none)


def _open(software: Software) -> list[str]:
    """Why the layer does not pass, though nothing failed."""
    reasons = [listed(software.findings.open)] if software.findings.open else []
    if not software.told:
        reasons.append("this system does not tell which libraries a process has mapped")
    if not software.whole:
        reasons.append("the engine holds more objects than were searched for mocks")
    if not software.findings.compared:
        reasons.append("no used file has an install record")
    return reasons
