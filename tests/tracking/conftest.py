from __future__ import annotations

import pytest

from tests.helpers.servers import MlflowServer, shared_server


@pytest.fixture
def server() -> MlflowServer:
    return shared_server()
