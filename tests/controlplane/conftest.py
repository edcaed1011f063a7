"""Rows most tests of the control plane start from."""

import pytest

from controlplane import seed
from controlplane.models import Agent


@pytest.fixture
def seeded(db) -> None:
    """Everything a first start seeds."""
    seed.seed()


@pytest.fixture
def agent(seeded) -> Agent:
    return Agent.objects.get(slug="python-developer")
