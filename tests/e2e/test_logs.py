"""The log of a process: JSON line by line, with the ids of requests, and neither a prompt nor a key in any of it."""

import json
import signal

import pytest

from tests.fakes.gateway import chat, openai_config
from tests.fakes.process import served
from tests.fakes.provider import fails, fake_provider, says

PROMPT = "canary-prompt-c0ffee"
ANSWER = "canary-answer-c0ffee"
CLIENT_KEY, PROVIDER_KEY = "canary-client-0123456789", "canary-provider-012345678"
ENV = {"CLIENT": CLIENT_KEY, "PROVIDER": PROVIDER_KEY, "MIXGATE_LOG_LEVEL": "debug"}
AUTH = {"authorization": f"Bearer {CLIENT_KEY}", "x-title": PROMPT, "http-referer": PROMPT}


def config(url):
    doors = "gateway: {client_keys: [env:CLIENT], log: {requests: true}}\n"
    return doors + openai_config(url).replace("    models:", "    api_key: env:PROVIDER\n    models:")


def echo(status):
    """An error that repeats all that was asked, as some providers' do."""

    async def reply(request, seen):
        said = json.dumps(seen.body) + str(seen.headers)
        return await fails(status, {"error": {"message": said, "type": said, "code": said, "param": said}})(
            request, seen
        )

    return reply


@pytest.mark.parametrize("form", ["json", pytest.param("text", marks=pytest.mark.full)])
async def test_the_log_of_a_process(tmp_path, form):
    path = tmp_path / "providers.yaml"
    async with fake_provider(says(ANSWER), echo(400), echo(500), echo(401), echo(429)) as provider:
        path.write_text(config(provider.base_url))
        async with served(path, "--log-format", form, env=ENV) as (process, client):
            ids = []
            for _ in range(6):
                told = await client.post("/v1/chat/completions", json=chat(PROMPT, user=PROMPT), headers=AUTH)
                ids += [told.headers["x-generation-id"]] if "x-generation-id" in told.headers else []
            await client.post("/v1/chat/completions", content=PROMPT, headers=AUTH)
            await client.get(f"/{PROMPT}", headers=AUTH)
            await process.until(f"request .*{ids[-1]}|{ids[-1]}.*request", "errors")
            process.process.send_signal(signal.SIGINT)  # without the lag that balancers need
            await process.exit_code()
    for secret in (PROMPT, ANSWER, CLIENT_KEY, PROVIDER_KEY):
        assert secret not in process.errors
        assert secret not in process.output
    if form == "json":
        events = [json.loads(line) for line in process.errors.splitlines()]
        requests = {event["request_id"]: event["facts"] for event in events if event["logger"] == "mixgate.requests"}
        assert len(ids) >= 3
        assert set(ids) <= set(requests)
        assert len(requests) == 6, "those that nobody could be asked for too"
        assert requests[ids[0]]["outcome"] == "ok"
        assert requests[ids[0]]["endpoint"] == "p0/up"
        assert requests[ids[1]]["outcome"] == "failed"
        assert all(event["time"].endswith("+00:00") for event in events)


async def test_no_line_for_each_request_unless_asked_for(tmp_path):
    path = tmp_path / "providers.yaml"
    async with fake_provider(says("fine")) as provider:
        path.write_text(openai_config(provider.base_url))
        async with served(path, env={"MIXGATE_LOG_FORMAT": "json"}) as (process, client):
            assert (await client.post("/v1/chat/completions", json=chat())).status_code == 200
            process.process.send_signal(signal.SIGINT)  # without the lag that balancers need
            await process.exit_code()
    assert "mixgate.requests" not in process.errors
    assert all(json.loads(line) for line in process.errors.splitlines())
