import asyncio
import json
import signal
import socket

import pytest

from tests.fakes.gateway import chat, openai_config
from tests.fakes.process import served, started
from tests.fakes.provider import fake_provider, says, stream_chunks, streams


def with_pauses(text: str, pause_s: float) -> list[bytes | float]:
    return [part for piece in stream_chunks(text) for part in (piece, pause_s)]


async def test_a_stream_under_way_survives_the_signal_to_stop(tmp_path):
    config = tmp_path / "providers.yaml"
    slow = streams(*with_pauses("a b c d e f g h i j", 0.1))
    async with fake_provider(slow) as provider:
        config.write_text(openai_config(provider.base_url))
        async with served(config) as (running, client):
            async with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
                lines = response.aiter_lines()
                await anext(lines)
                running.process.send_signal(signal.SIGTERM)
                await asyncio.sleep(0.2)
                ready = await client.get("/readyz")
                alive = await client.get("/livez")
                rest = [line async for line in lines]
            assert (ready.status_code, alive.status_code) == (503, 200)
            assert rest[-2:] == ["data: [DONE]", ""]
            assert await running.exit_code() == 0


async def test_a_changed_file_is_taken_and_a_broken_one_refused(tmp_path):
    config = tmp_path / "providers.yaml"
    async with fake_provider(says("from a")) as a, fake_provider(says("from b")) as b:
        config.write_text(openai_config(a.base_url))
        async with served(config) as (running, client):

            async def answer() -> str:
                response = await client.post("/v1/chat/completions", json=chat())
                return response.json()["choices"][0]["message"]["content"]

            assert await answer() == "from a"
            config.write_text(openai_config(b.base_url) + "\nnonsense: true\n")
            await running.until(r"refused", "errors")
            assert "providers.yaml:" in running.errors
            assert "nonsense" in running.errors
            assert await answer() == "from a"
            config.write_text(openai_config(b.base_url))
            await running.until(r"read anew", "errors")
            assert await answer() == "from b"


async def test_a_stream_finishes_on_the_configuration_it_began_with(tmp_path):
    config = tmp_path / "providers.yaml"
    slow = streams(*with_pauses("a b c d e f g h i j k l m n o p q r s t u v", 0.1))
    async with fake_provider(slow) as a, fake_provider(says("from b")) as b:
        config.write_text(openai_config(a.base_url))
        async with served(config) as (running, client):
            async with client.stream("POST", "/v1/chat/completions", json=chat(stream=True)) as response:
                lines = response.aiter_lines()
                await anext(lines)
                config.write_text(openai_config(b.base_url))
                await running.until(r"read anew", "errors")
                rest = [line async for line in lines]
            assert "data: [DONE]" in rest
            after = await client.post("/v1/chat/completions", json=chat())
            assert after.json()["choices"][0]["message"]["content"] == "from b"


async def test_what_starts_says_where_it_is_and_gives_a_line_that_works(tmp_path):
    config = tmp_path / "providers.yaml"
    async with fake_provider(says("pasted")) as provider:
        config.write_text(openai_config(provider.base_url))
        async with served(config) as (running, _):
            line = (await running.until(r"(?m)^curl .*$")).group(0)
            process = await asyncio.create_subprocess_shell(f"{line} --silent", stdout=asyncio.subprocess.PIPE)
            out, _ = await process.communicate()
    assert json.loads(out)["choices"][0]["message"]["content"] == "pasted"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--workers", "2", "--port", "99999"], "65535"),
        (["--workers", "2", "--host", "0.0.0.0"], "client_keys"),  # noqa: S104 (it is refused)
        (["--host", "0.0.0.0"], "client_keys"),  # noqa: S104 (it is refused)
        (["--port", "99999"], "65535"),
    ],
)
async def test_what_cannot_start_exits_2_and_says_what_to_do(tmp_path, flags, words):
    config = tmp_path / "providers.yaml"
    config.write_text(openai_config("http://127.0.0.1:1/v1"))
    async with started(config, *flags) as running:
        assert await running.exit_code() == 2
    assert words in running.output + running.errors


async def test_a_busy_port_exits_2_and_names_another(tmp_path):
    config = tmp_path / "providers.yaml"
    config.write_text(openai_config("http://127.0.0.1:1/v1"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for flags in ((), ("--workers", "2")):
            async with started(config, "--port", str(port), *flags) as running:
                assert await running.exit_code() == 2
            assert "in use" in running.output + running.errors


async def test_client_keys_open_the_door_and_are_never_printed(tmp_path):
    config = tmp_path / "providers.yaml"
    secret = "ck-canary-5f1f2a77"
    async with fake_provider(says("welcome")) as provider:
        config.write_text("gateway: {client_keys: [env:CLIENT_KEY]}\n" + openai_config(provider.base_url))
        async with served(config, env={"CLIENT_KEY": secret}) as (running, client):
            denied = await client.post("/v1/chat/completions", json=chat())
            wrong = await client.get("/v1/models", headers={"authorization": "Bearer nope"})
            given = {"authorization": f"Bearer {secret}"}
            allowed = await client.post("/v1/chat/completions", json=chat(), headers=given)
            running.process.send_signal(signal.SIGINT)
            await running.exit_code()
    assert [denied.status_code, wrong.status_code, allowed.status_code] == [401, 401, 200]
    assert denied.json()["error"]["code"] == "invalid_api_key"
    assert secret not in running.output + running.errors + denied.text + wrong.text
    assert all(secret not in str(seen.headers) for seen in provider.requests)
