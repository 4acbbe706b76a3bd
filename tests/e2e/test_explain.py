"""A real request through a real gateway leaves a record that `mixgate explain` tells, and replays the same."""

import asyncio
import json
import zlib
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from gateway.cli import main
from gateway.state.connection import FILE_NAME
from gateway.state.reader import Reader
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import fails, fake_provider, says

WAIT_S = 30.0
SECRET = "words-that-nobody-may-keep"
KEY = "sk-planted-by-the-test-0123456789"


def explain(home: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["explain", *arguments], env={"MIXGATE_HOME": str(home)}, catch_exceptions=False)


async def flushed(running) -> None:
    """The record is made when the answer ends, which may be a moment after its last byte was read."""
    await asyncio.sleep(0.05)
    assert await asyncio.to_thread(running.gateway._store.flush, WAIT_S)


async def test_a_request_that_failed_over_is_explained_and_replayed(tmp_path: Path):
    async with fake_provider(fails(503)) as bad, fake_provider(says(SECRET)) as good:
        config = openai_config(bad.base_url, good.base_url).replace(
            "dialect: openai", "dialect: openai\n    api_key: env:K", 1
        )
        async with running_gateway(config, tmp_path, {"K": KEY}) as running:
            ids = []
            for stream in (False, True):
                response = await running.client.post("/v1/chat/completions", json=chat(SECRET, stream=stream))
                assert response.status_code == 200
                ids.append(response.headers["x-generation-id"])
            await flushed(running)
            for name in ids:
                shown = explain(tmp_path / "home", name, "--replay")
                assert shown.exit_code == 0, shown.output
                for words in (
                    name,
                    "answered by p1/up",
                    "provider_overloaded",
                    "503",
                    "decided once more: the same plan",
                ):
                    assert words in shown.output
            record = json.loads(explain(tmp_path / "home", "last", "--json").output)
    assert record["id"] == ids[-1]
    assert record["requested"] == ["m"]
    assert [one["endpoint"] for one in record["attempts"]] == ["p0/up", "p1/up"]
    assert record["attempts"][1]["tokens"]["output"] > 0
    kept = [(tmp_path / "home" / FILE_NAME).read_bytes()]
    with Reader(tmp_path / "home" / FILE_NAME) as reader:
        kept += [zlib.decompress(data) for (data,) in reader._rows("SELECT data FROM decision_block")]
        kept += [zlib.decompress(data) for (data,) in reader._rows("SELECT data FROM decision_table")]
        assert reader.read_minutes("p1/up", 0, 1 << 40)[0].ok == 2
    assert all(secret.encode() not in data for data in kept for secret in (SECRET, KEY))


async def test_a_dry_run_tells_the_same_decision_and_asks_nobody(tmp_path: Path):
    async with fake_provider() as one, fake_provider() as two:
        async with running_gateway(openai_config(one.base_url, two.base_url), tmp_path) as running:
            answers = [
                await running.client.post(f"{surface}/route/explain", json=chat(SECRET))
                for surface in ("/v1", "/api/v1")
            ]
            body = tmp_path / "body.json"
            body.write_text(json.dumps(chat(SECRET)))
            shown = await asyncio.to_thread(
                explain, tmp_path / "home", "-f", str(body), "--url", f"{running.url}/v1", "--json"
            )
            refused = await running.client.post("/v1/route/explain", json=chat(model="nobody"))
            await flushed(running)
        with Reader(tmp_path / "home" / FILE_NAME) as reader:
            assert reader.kept().count == 0
    assert not one.requests
    assert not two.requests
    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json()["would_ask"] == ["p0/up", "p1/up"]
    assert all(shown["expected_cost"].startswith("0.000") for shown in answers[0].json()["candidates"])
    assert SECRET not in answers[0].text
    assert shown.exit_code == 0, shown.output
    assert json.loads(shown.output)["would_ask"] == ["p0/up", "p1/up"]
    assert refused.status_code == 404


@pytest.mark.parametrize("surface", ["/v1", "/api/v1"])
@pytest.mark.parametrize("headers", [{}, {"Idempotency-Key": "once"}, {"x-openrouter-cache": "true"}])
async def test_a_refusal_before_anybody_was_asked_says_under_which_id_it_is_explained(
    tmp_path: Path, surface: str, headers: dict[str, str]
):
    async with fake_provider() as provider:
        config = openai_config(provider.base_url).replace("context_tokens: 32768", "context_tokens: 1024")
        async with running_gateway(config, tmp_path) as running:
            path = f"{surface}/chat/completions"
            told = await running.client.post(path, json=chat("word " * 5000), headers=headers)
            assert (told.status_code, told.json()["error"]["code"]) == (400, "context_length_exceeded"), told.text
            unknown = await running.client.post(path, json={**chat("a"), "model": "nope"})
            await flushed(running)
            shown = explain(tmp_path / "home", *told.headers.get_list("x-generation-id"))
        assert provider.requests == []
    assert shown.exit_code == 0, shown.output
    assert "context_length_exceeded" in shown.output
    assert "x-generation-id" not in unknown.headers, "nothing was decided, so there is no record"
