"""A Postgres for the tests that want one."""

import pytest

from tests.fakes.postgres import postgres


@pytest.fixture(scope="session")
def postgres_server():
    """The server; whoever stops it starts it again."""
    with postgres() as server:
        yield server


@pytest.fixture
def fleet_url(postgres_server):
    """An empty database."""
    return postgres_server.url(postgres_server.make_database())
