"""One cache for the tests of families, apart from the user's."""

from collections.abc import Iterator

import pytest

from assay import checkpoints, families
from assay.checkpoints import Checkpoint
from assay.families.base import Family


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSAY_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session", params=families.ORDER)
def family(request: pytest.FixtureRequest) -> Family:
    return families.load(request.param)


@pytest.fixture(scope="session")
def checkpoint(family: Family) -> Checkpoint:
    return checkpoints.local(family.id)
