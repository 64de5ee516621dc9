"""One name for each cell, the same from run to run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assay.report.names import names
from tests import strategies as make


@pytest.mark.parametrize("device", [True, False])
@given(reports=st.lists(make.reports(), max_size=6))
def test_no_two_cells_have_one_name(device: bool, reports: list[make.SessionReport]) -> None:
    cells = make.matrix(*reports).cells
    assert len(set(names(cells, device=device))) == len(cells)


def test_a_later_run_has_the_same_name() -> None:
    first, later = (
        make.matrix(make.report(make.cell(), session=name, start=start)) for name, start in (("a", 0), ("b", 9))
    )
    assert names(first.cells, device=True) == names(later.cells, device=True)


def test_a_users_checkpoint_is_named_with_its_hash() -> None:
    mine = make.cell(size="own", checkpoint=make.checkpoint("mine", "path"))
    name = next(each for each in names(make.matrix(make.report(mine)).cells, device=False) if "mine" in each)
    assert name.startswith("bert on cpu, mine ") and name.endswith(", f32")
