"""One cache for the tests of families, apart from the user's."""

from collections.abc import Iterator

import pytest
import torch

from assay import checkpoints, families
from assay.checkpoints import Checkpoint
from assay.families.base import Family


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Threads of tiny operations on busy cores only wait for each other: six times slower."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session", params=families.ORDER)
def family(request: pytest.FixtureRequest) -> Family:
    return families.load(request.param)


@pytest.fixture(scope="session")
def checkpoint(family: Family) -> Checkpoint:
    return checkpoints.local(family.id)
