"""Who can answer for a Model, as OpenRouter's own SDK reads it."""

import msgspec
import pytest
from openrouter import OpenRouter
from openrouter.components import ListEndpointsResponse

from gateway.config.catalogue import Route
from gateway.health import Health, Result
from gateway.server.endpoints import STATUSES, list_endpoints
from providers.base import Capabilities, Price, PriceOverride
from tests.fakes.catalogues import catalogue, endpoint, priced
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.provider import fails, fake_provider, stream_chunks, streams

FULL = endpoint(
    "one/big",
    price=Price(1_500_000, 2_000_000, 150_000, 3_000_000, 1_000_000_000, 4_000_000_000),
    quantization="fp8",
    capabilities=Capabilities(tools=True, vision=True, json_schema=True),
    parameters=frozenset({"tools", "seed"}),
    description="words",
)
BARE = endpoint("two/big", None, context_tokens=None, max_output_tokens=None)
ROUTE = Route(name="m", endpoints=("one/big", "two/big"), fallback=("three/other",))
CATALOGUE = catalogue(
    [FULL, BARE, endpoint("three/other", model="n")],
    [ROUTE],
    {
        "one/big": (
            PriceOverride(price=priced(3), min_prompt_tokens=200_000),
            PriceOverride(price=priced(1), utc_start="16:30", utc_end="00:30"),
        )
    },
)


def listed(health=None, *, now_s=0.0, off=None, route=ROUTE, known=CATALOGUE):
    body = list_endpoints(route, known, off or {}, health or Health(lambda: 0.5), now_s)
    ListEndpointsResponse.model_validate_json(msgspec.json.encode(body["data"]))
    return body["data"]


def test_what_is_known_of_each_endpoint():
    data = listed()
    assert (data["id"], data["name"], data["description"]) == ("m", "m", "words")
    assert data["architecture"]["input_modalities"] == ["text", "image"]
    full, bare = data["endpoints"]
    assert {key: full[key] for key in ("name", "model_id", "provider_name", "tag", "quantization", "status")} == {
        "name": "one: m",
        "model_id": "m",
        "provider_name": "one",
        "tag": "one",
        "quantization": "fp8",
        "status": 0,
    }
    assert (full["context_length"], full["max_completion_tokens"], full["max_prompt_tokens"]) == (1000, 500, 1000)
    assert full["supported_parameters"] == ["seed", "tools"]
    assert full["supports_tool_choice"]["required"] is True
    assert bare["supports_tool_choice"]["auto"] is False
    assert bare["supported_parameters"] == ["max_tokens", "stop", "temperature", "top_p"]


def test_prices_are_decimal_text_and_conditions_go_along():
    pricing = listed()["endpoints"][0]["pricing"]
    assert {key: value for key, value in pricing.items() if key != "overrides"} == {
        "prompt": "0.0000015",
        "completion": "0.000002",
        "input_cache_read": "0.00000015",
        "input_cache_write": "0.000003",
        "request": "0.001",
        "image": "0.004",
    }
    assert pricing["overrides"] == [
        {"prompt": "0.000003", "completion": "0.000003", "min_prompt_tokens": 199_999},
        {"prompt": "0.000001", "completion": "0.000001", "utc_start": 1630, "utc_end": 30},
    ]


def test_what_nobody_knows_is_said_in_the_schemas_own_words():
    bare = listed()["endpoints"][1]
    assert bare["pricing"] == {"prompt": "-1", "completion": "-1"}
    assert (bare["context_length"], bare["max_prompt_tokens"], bare["max_completion_tokens"]) == (0, None, None)
    assert bare["quantization"] == "unknown"
    for name in (
        "uptime_last_5m",
        "uptime_last_30m",
        "uptime_last_1d",
        "latency_last_30m",
        "throughput_last_30m",
    ):
        assert bare[name] is None


def test_uptime_is_a_percentage_of_each_window():
    health = Health(lambda: 0.5)
    known = health.of("one/big")
    for now_s, failures in ((0.0, 3), (7200.0, 1), (8940.0, 0)):  # a day ago but for 2.5 h, half an hour ago, just now
        for position in range(4):
            failure = "midstream" if position < failures else None
            known.leave(known.enter(now_s), Result(failure=failure, ttft_s=0.5), now_s)
    found = listed(health, now_s=8960.0)["endpoints"][0]
    assert (found["uptime_last_5m"], found["uptime_last_30m"], found["uptime_last_1d"]) == (100.0, 87.5, 66.67)


def test_pace_is_of_half_an_hour_in_milliseconds_and_tokens_per_second():
    health = Health(lambda: 0.5)
    known = health.of("one/big")
    for minute in range(31):
        now_s = 60.0 * minute
        known.leave(known.enter(now_s), Result(ttft_s=0.5, duration_s=2.5, output_tokens=100), now_s)
    found = listed(health, now_s=1800.0)["endpoints"][0]
    assert found["latency_last_30m"]["p50"] == pytest.approx(500, rel=0.42)  # a bucket is half an octave wide
    assert found["throughput_last_30m"]["p50"] == pytest.approx(50, rel=0.42)
    assert found["throughput_last_30m"]["p99"] <= found["throughput_last_30m"]["p50"]
    # Decisions look at five minutes, clients at thirty.
    assert known.observe(2400.0).latency is None
    assert listed(health, now_s=2400.0)["endpoints"][0]["latency_last_30m"] is not None
    assert listed(health, now_s=3600.0)["endpoints"][0]["latency_last_30m"] is None


def test_the_status_follows_the_standing():
    health = Health(lambda: 0.5)
    known = health.of("one/big")
    for _ in range(3):
        known.leave(known.enter(0.0), Result(failure="server"), 0.0)
    assert listed(health)["endpoints"][0]["status"] == STATUSES["open"] < 0
    refused = health.of("two/big")
    refused.leave(refused.enter(0.0), Result(failure="auth"), 0.0)
    assert listed(health)["endpoints"][1]["status"] == STATUSES["disabled"]


def test_who_is_off_is_not_listed_and_neither_is_a_fallback():
    assert [one["provider_name"] for one in listed(off={"one/big": "no key"})["endpoints"]] == ["two"]
    assert listed(off={"one/big": "no key", "two/big": "no key"})["endpoints"] == []


def test_a_tag_means_one_of_them():
    known = catalogue([endpoint("one/a"), endpoint("one/b"), endpoint("two/a")])
    route = Route(name="m", endpoints=("one/a", "one/b", "two/a"))
    assert [one["tag"] for one in listed(route=route, known=known)["endpoints"]] == ["one/a", "one/b", "two"]


CONFIG = """
providers:
  one:
    dialect: openai
    base_url: {one}
    models:
      up: {{serves: acme/big, context_tokens: 1000, price: {{input: 1, output: 2}}}}
  two:
    dialect: openai
    base_url: {two}
    models:
      up: {{serves: acme/big, context_tokens: 1000, price: {{input: 1, output: 2}}}}
routes:
  acme/big: {{policy: ordered, aliases: [plain]}}
"""


async def test_the_sdk_reads_what_a_running_gateway_saw(tmp_path):
    chunks = stream_chunks("hello there")
    slow = streams(*chunks[:-1], 0.05, chunks[-1])  # at once, it would have no time to its first token
    async with fake_provider(fails(400)) as one, fake_provider(slow) as two:
        config = CONFIG.format(one=one.base_url, two=two.base_url)
        async with running_gateway(config, tmp_path) as running:
            body = chat(model="acme/big", provider={"order": ["two"]}, stream=True)
            assert (await running.client.post("/api/v1/chat/completions", json=body)).status_code == 200
            async with OpenRouter(api_key="none", server_url=f"{running.url}/api/v1") as sdk:
                found = (await sdk.endpoints.list_async(author="acme", slug="big")).data
            assert [one.tag for one in found.endpoints] == ["one", "two"]
            assert [one.uptime_last_1d for one in found.endpoints] == [None, 100.0]
            assert found.endpoints[1].latency_last_30m.p50 > 0
            for path in ("/v1/models/plain/endpoints", "/api/v1/models/acme%2Fbig/endpoints"):
                assert (await running.client.get(path)).json()["data"]["id"] == "acme/big"
            missing = await running.client.get("/api/v1/models/no/body/endpoints")
            assert (missing.status_code, missing.json()["error"]["code"]) == (404, "model_not_found")
            assert (await running.client.post("/v1/models/plain/endpoints")).status_code == 405
