"""One Redis for the tests of a process, and a place for each test in it."""

import asyncio
import subprocess
import time

import pytest

from tests.gateway.sharing.redis_kit import SERVER, Server, free_port

START_S = 20.0


@pytest.fixture(scope="session")
def shared_server(tmp_path_factory):
    """A Redis that no test stops or empties."""
    assert SERVER is not None, "redis-server is not installed"
    folder, port = tmp_path_factory.mktemp("redis"), free_port()
    place = ("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder))
    process = subprocess.Popen(
        [SERVER, *place, "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    server = Server(folder, port)
    until_s = time.monotonic() + START_S
    while True:
        try:
            asyncio.run(server.say("PING"))
            break
        except OSError:
            assert time.monotonic() < until_s
            time.sleep(0.05)
    yield server
    process.kill()
    process.wait()


_PLACES = iter(range(10**6))


@pytest.fixture
def prefix():
    return f"t{next(_PLACES)}:"
