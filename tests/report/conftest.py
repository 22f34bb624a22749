from __future__ import annotations

import pytest

from rlhpo_core.report.figures import figures
from tests.helpers.reported_studies import Study, tuned


@pytest.fixture(scope="package", params=["maximize", "minimize"])
def study(request: pytest.FixtureRequest) -> Study:
    return tuned(request.param)


@pytest.fixture(scope="package")
def pngs(study: Study) -> dict[str, bytes]:
    return figures(*study)
