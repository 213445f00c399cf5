"""Helm must be there for all of these."""

from __future__ import annotations

import pytest

from tests import helm
from tests.conftest import needs


@pytest.fixture(scope="session", autouse=True)
def helm_is_there() -> None:
    needs(helm.missing())
