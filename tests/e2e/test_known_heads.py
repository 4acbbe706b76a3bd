"""What a head said once holds for its connection only as long as nothing has changed who may come."""

import asyncio
import json

import pytest

from gateway.config.load import load
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import fake_provider, says

ADMIN = "canary-admin-token-90c1"


class Caller:
    """Sends the same head again and again on one connection."""

    def __init__(self, running, key=None):
        self._port = int(running.url.rpartition(":")[2])
        body = json.dumps(chat()).encode()
        credential = b"" if key is None else b"Authorization: Bearer %b\r\n" % key.encode()
        head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n%bContent-Type: application/json\r\n"
        self._request = head % credential + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        self._streams = None

    async def ask(self):
        """The status of one more answer."""
        if self._streams is None:
            self._streams = await asyncio.open_connection("127.0.0.1", self._port)
        reader, writer = self._streams
        writer.write(self._request)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
        await reader.readexactly(length)
        return int(head.split()[1])

    def leave(self):
        """End it."""
        self._streams[1].close()


@pytest.fixture
async def provider():
    async with fake_provider(says("hello")) as one:
        yield one


async def test_a_key_that_is_taken_from_the_configuration_opens_no_known_connection(tmp_path, provider):
    config = "gateway: {client_keys: [env:CLIENT]}\n" + openai_config(provider.base_url)
    async with running_gateway(config, tmp_path, {"CLIENT": "first-key"}) as running:
        caller = Caller(running, "first-key")
        assert [await caller.ask() for _ in range(3)] == [200] * 3
        running.gateway.replace(load(tmp_path / "providers.yaml", {"CLIENT": "second-key"}))
        assert [await caller.ask() for _ in range(2)] == [401] * 2
        running.gateway.replace(load(tmp_path / "providers.yaml", {"CLIENT": "first-key"}))
        assert await caller.ask() == 200
        caller.leave()


async def test_an_issued_key_is_asked_for_each_time(tmp_path, provider):
    config = "gateway: {admin_token: env:ADMIN}\n" + openai_config(provider.base_url)
    async with running_gateway(config, tmp_path, {"ADMIN": ADMIN}) as running:
        client, admin = running.client, {"authorization": f"Bearer {ADMIN}"}
        nobody = Caller(running)
        assert [await nobody.ask() for _ in range(3)] == [200] * 3
        await client.post("/api/v1/keys", json={"name": "another"}, headers=admin)
        made = (await client.post("/api/v1/keys", json={"name": "app"}, headers=admin)).json()
        assert await nobody.ask() == 401, "from the first key on nobody comes without one"
        holder, path = Caller(running, made["key"]), f"/api/v1/keys/{made['data']['hash']}"
        assert [await holder.ask() for _ in range(3)] == [200] * 3
        for disabled, status in ((True, 401), (False, 200)):
            await client.patch(path, json={"disabled": disabled}, headers=admin)
            assert await holder.ask() == status
        await client.delete(path, headers=admin)
        assert [await holder.ask() for _ in range(2)] == [401] * 2
        for one in (nobody, holder):
            one.leave()
