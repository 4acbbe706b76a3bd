"""Issued keys as their users meet them: over HTTP, by the command line, in logs and files, after a restart."""

import json
import os
import re
import subprocess
from pathlib import Path

import httpx
import pytest

from gateway.keys.credential import is_key
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.process import MIXGATE, served
from tests.fakes.provider import fake_provider, says

ADMIN = "canary-admin-token-5510ab"
KEYS = "/api/v1/keys"
ANYWHERE = "0.0.0.0"  # noqa: S104 - what is tried is who may


def bearer(text):
    return {"authorization": f"Bearer {text}"}


def with_settings(config, settings):
    return f"gateway: {{{settings}}}\n{config}"


@pytest.fixture
async def administered(tmp_path):
    """A gateway with an admin token, and a client that has it."""
    async with fake_provider(says("hello")) as provider:
        config = with_settings(openai_config(provider.base_url), "admin_token: env:ADMIN")
        async with running_gateway(config, tmp_path, {"ADMIN": ADMIN}) as running:
            running.client.headers.update(bearer(ADMIN))
            yield running


async def test_a_key_lives_as_openrouters_do(administered):
    client = administered.client
    made = await client.post(KEYS, json={"name": "app", "limit": 2.5, "limit_reset": "monthly"})
    assert made.status_code == 201
    assert made.headers["cache-control"] == "no-store"
    text, item = made.json()["key"], made.json()["data"]
    assert is_key(text)
    assert (item["limit"], item["limit_remaining"], item["limit_reset"], item["usage"]) == (2.5, 2.5, "monthly", 0)
    assert (await client.get(KEYS)).json()["data"] == [item]
    own = (await client.get("/api/v1/key", headers=bearer(text))).json()["data"]
    assert (own["label"], own["limit"], own["is_management_key"]) == (f"mg-{text[3:11]}...", 2.5, False)
    assert (await client.post("/v1/chat/completions", json=chat(), headers=bearer(text))).status_code == 200

    changed = await client.patch(f"{KEYS}/{item['hash']}", json={"disabled": True, "limit": None})
    assert (changed.json()["data"]["disabled"], changed.json()["data"]["limit"]) == (True, None)
    refused = await client.post("/v1/chat/completions", json=chat(), headers=bearer(text))
    assert (refused.status_code, refused.json()["error"]["code"]) == (401, "invalid_api_key")
    assert "disabled" in refused.json()["error"]["message"]
    assert (await client.patch(f"{KEYS}/{item['hash']}", json={"disabled": False})).status_code == 200

    rotated = await client.post(f"{KEYS}/{item['hash']}/rotate", json={"overlap_s": 60})
    for one in (text, rotated.json()["key"]):
        assert (await client.get("/v1/models", headers=bearer(one))).status_code == 200
    assert (await client.delete(f"{KEYS}/{item['hash']}")).json() == {"deleted": True}
    assert (await client.get(f"{KEYS}/{item['hash']}")).status_code == 404
    assert (await client.get("/v1/models", headers=bearer(text))).status_code != 403


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": 5},
        {"name": "x", "limit": -1},
        {"name": "x", "limit": 0.0000000001},
        {"name": "x", "limit": 1e300},
        {"name": "x", "limit_reset": "hourly"},
        {"name": "x", "expires_at": "2020-01-01T00:00:00Z"},
        {"name": "x", "expires_at": "2030-01-01T00:00:00"},
        {"name": "x", "is_management_key": True},
        {"name": "x", "role": "admin"},
        {"name": "x", "mixgate": {"role": "admin"}},
        {"name": "x", "mixgate": {"parent": "missing0"}},
        {"name": "x", "mixgate": {"budget": {"year": "1"}}},
        {"name": "x", "mixgate": {"models": "m"}},
        {"name": "x" * 70_000},
    ],
)
async def test_what_is_not_a_key_is_not_made(administered, body):
    answer = await administered.client.post(KEYS, json=body)
    assert answer.status_code in {400, 404, 413}
    assert (await administered.client.get(KEYS)).json()["data"] == []


async def test_amounts_are_exact(administered):
    made = await administered.client.post(
        KEYS, content=b'{"name":"x","limit":123456789.123456789}', headers={"content-type": "application/json"}
    )
    assert b'"limit":123456789.123456789,' in made.content
    assert made.json()["data"]["mixgate"]["budget"]["ever"] == "123456789.123456789"


async def test_changes_at_the_same_time_all_count(administered):
    client = administered.client
    made = (await client.post(KEYS, json={"name": "app"})).json()["data"]
    bodies = [{"mixgate": {"concurrency": 5}}, {"mixgate": {"requests_per_min": 6}}, {"limit": 7}, {"name": "other"}]
    for answer in [await one for one in [client.patch(f"{KEYS}/{made['hash']}", json=body) for body in bodies]]:
        assert answer.status_code == 200
    item = (await client.get(f"{KEYS}/{made['hash']}")).json()["data"]
    own = item["mixgate"]
    assert (own["concurrency"], own["requests_per_min"], item["limit"], item["name"]) == (5, 6, 7, "other")


async def test_keys_outlive_the_process(tmp_path):
    async with fake_provider(says("hello")) as provider:
        config = openai_config(provider.base_url)
        async with running_gateway(config, tmp_path) as running:
            text = (await running.client.post(KEYS, json={"name": "app"})).json()["key"]
            assert (await running.client.get("/v1/models")).status_code == 401
        async with running_gateway(config, tmp_path) as running:
            assert (await running.client.get("/v1/models")).status_code == 401
            assert (await running.client.get("/v1/models", headers=bearer(text))).status_code == 200
            assert (await running.client.get(KEYS, headers=bearer(text))).status_code == 403


def run(home, *arguments, command="keys", code=0):
    done = subprocess.run(
        [MIXGATE, command, *arguments],
        env={**os.environ, "MIXGATE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done


def process_listing(pid):
    """What everybody sees of this process, and its user of its environment."""
    lines = [Path("/proc", str(pid), name).read_bytes().decode("utf-8", "replace") for name in ("cmdline", "environ")]
    return [*lines, subprocess.run(["ps", "axww"], capture_output=True, text=True, check=False).stdout]


def assert_unseen(canaries, printed, home):
    for canary in canaries:
        secret = canary[11:]
        assert all(secret not in one for one in printed)
        for file in home.rglob("*"):
            if file.is_file():
                content = file.read_bytes()
                assert secret.encode() not in content, file
                assert canary.encode().hex().encode() not in content, file


async def test_a_key_made_offline_opens_an_address_others_can_reach_and_is_never_printed_again(tmp_path):
    home = tmp_path / "home"
    async with fake_provider(says("hello")) as provider:
        path = tmp_path / "providers.yaml"
        path.write_text(openai_config(provider.base_url))
        refused = run(home, "--config", path, "--host", ANYWHERE, "--port", "0", command="serve", code=2)
        assert "mixgate keys create" in refused.stderr
        made = run(home, "create", "app", "--ever", "1")
        text = made.stdout.strip()
        assert is_key(text)
        printed = [made.stderr, run(home, "list").stdout, run(home, "list", "--json").stdout]
        async with served(path, "--host", ANYWHERE, env={"MIXGATE_HOME": str(home)}) as (process, _):
            url = re.sub(r"//[^:/]+", "//127.0.0.1", process.url)
            async with httpx.AsyncClient(base_url=url, trust_env=False) as client:
                assert (await client.get("/v1/models", headers=bearer(text))).status_code == 200
                assert (await client.get("/v1/models")).status_code == 401
                answer = await client.post("/v1/chat/completions", json=chat(), headers=bearer(text))
                assert answer.status_code == 200
                printed.append((await client.get("/v1/models", headers=bearer(text[:-1] + "!"))).text)
                # The gateway has the store now, and makes the changes.
                second = run(home, "create", "second", "--url", url).stdout.strip()
                assert (await client.get("/v1/models", headers=bearer(second))).status_code == 200
                printed.append(run(home, "disable", "app", "--url", url, code=1).stderr)
                app_id = json.loads(run(home, "show", "app", "--json").stdout)["data"]["mixgate"]["id"]
                printed.append(run(home, "disable", app_id, "--url", url).stdout)
                assert (await client.get("/v1/models", headers=bearer(text))).status_code == 401
                printed += process_listing(process.process.pid)
        printed += [process.output, process.errors]
    assert_unseen((text, second), printed, home)


def test_the_command_line_says_what_is_wrong(tmp_path):
    home = tmp_path / "home"
    assert "no key" in run(home, "show", "nobody", code=2).stderr
    assert "whole number" in run(home, "create", "x", "--concurrency", "1.5", code=2).stderr
    assert "billion" in run(home, "create", "x", "--ever", "-1", code=2).stderr
    run(home, "create", "team", "--models", "m")
    assert "does not grant" in run(home, "create", "x", "--team", "team", "--models", "n", code=2).stderr
    assert "already" in run(home, "create", "team", code=2).stderr
    run(home, "create", "child", "--team", "team", "--expires", "30d")
    item = json.loads(run(home, "show", "child", "--json").stdout)["data"]
    assert item["expires_at"] is not None
    assert item["mixgate"]["parent"]
    run(home, "change", "child", "--expires", "none", "--requests-per-min", "7")
    assert json.loads(run(home, "show", "child", "--json").stdout)["data"]["expires_at"] is None
    run(home, "delete", "team", "--yes")
    assert "in a team that is deleted" in run(home, "list").stdout
    assert "no key 'team'" in run(home, "show", "team", code=2).stderr
