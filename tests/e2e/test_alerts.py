"""A whole gateway tells a real receiver what happens to it, and requests know nothing of that."""

import json

import gateway.alerts.alerts
from gateway.alerts.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, verify
from tests.fakes.duo import Place, config_of
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.money import FAST, answers
from tests.fakes.scripted import fails, scripted
from tests.fakes.webhook import webhook

SECRET = "a secret of sixteen characters or more".replace(" ", "-")
USED = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}


async def test_a_gateway_tells_that_an_endpoint_is_down_and_what_its_fallback_costs(tmp_path, monkeypatch):
    monkeypatch.setattr(gateway.alerts.alerts, "EVERY_S", 0.2)
    async with webhook() as hook, scripted(fails(401)) as first, scripted(answers(USED)) as second:
        settings = f"gateway: {{alerts: [{{url: '{hook.url}', secret: env:HOOK_SECRET}}]}}"
        places = [Place(first.base_url), Place(second.base_url, price="{input: 10, output: 20}")]
        config = config_of(*places, gateway=settings)
        async with running_gateway(config, tmp_path, {"HOOK_SECRET": SECRET}, limits=FAST) as running:
            response = await running.client.post("/v1/chat/completions", json=chat("hi"))
            assert response.status_code == 200
            told = await hook.wait_for(2)
    said = {json.loads(one.body)["event"]: json.loads(one.body)["data"] for one in told}
    assert said["endpoint_down"]["endpoint"] == "p0/up"
    assert said["endpoint_down"]["standing"] == "disabled"
    dear = said["dear_fallback"]
    # 1000 and 100 tokens: 12000 micro-USD at 10 and 20, 1200 at 1 and 2.
    assert (dear["endpoint"], dear["cost_usd"], dear["first_choice_usd"]) == ("p1/up", "0.012", "0.0012")
    for one in told:
        timestamp, signature = one.headers[TIMESTAMP_HEADER], one.headers[SIGNATURE_HEADER]
        assert verify(SECRET, timestamp, signature, one.body, now_unix_s=float(timestamp))
