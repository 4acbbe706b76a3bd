"""A provider's own cost beside our price: said once, with both figures, and never in the way."""

import json
import logging
from datetime import UTC, datetime
from pathlib import Path

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from gateway.cost_check import CostCheck, differs, usd_text
from providers.base import Endpoint, Price, PriceOverride
from providers.messages import Usage
from tests.fakes.gateway import running_gateway
from tests.fakes.provider import fake_provider

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PRICE = Price(input_in_pusd=2_000_000, output_in_pusd=6_000_000)


def endpoint(name="a", price=PRICE):
    return Endpoint(id=f"p/{name}", provider="p", model="m", upstream_model=name, base_url="http://h", price=price)


def usage(cost_in_nusd, input_tokens=1000, output_tokens=100):
    return Usage(input_tokens=input_tokens, output_tokens=output_tokens, cost_in_nusd=cost_in_nusd)


TRUE_COST = 1000 * 2_000 + 100 * 6_000


@pytest.mark.parametrize(
    ("stated", "said"),
    [
        (TRUE_COST, False),
        (TRUE_COST * 100 // 99, False),
        (TRUE_COST * 100 // 98, True),
        (TRUE_COST * 2, True),
        (0, True),
        (None, False),
    ],
)
def test_over_one_percent_is_said(caplog: pytest.LogCaptureFixture, stated: int | None, said: bool):
    CostCheck(lambda: NOON).compare(endpoint(), (), usage(stated))
    assert bool(caplog.records) == said
    if said:
        assert usd_text(stated) in caplog.text
        assert usd_text(TRUE_COST) in caplog.text
        assert "p/a" in caplog.text


def test_it_is_said_once_for_each_endpoint_and_price(caplog: pytest.LogCaptureFixture):
    check = CostCheck(lambda: NOON)
    for _ in range(3):
        check.compare(endpoint(), (), usage(1))
        check.compare(endpoint("b"), (), usage(1))
    assert len(caplog.records) == 2
    check.compare(endpoint(price=Price(input_in_pusd=9, output_in_pusd=9_000_000)), (), usage(1))
    assert len(caplog.records) == 3


def test_overrides_count(caplog: pytest.LogCaptureFixture):
    half = PriceOverride(price=Price(input_in_pusd=1_000_000, output_in_pusd=3_000_000), min_prompt_tokens=1000)
    CostCheck(lambda: NOON).compare(endpoint(), (half,), usage(TRUE_COST // 2))
    assert not caplog.records


@pytest.mark.parametrize("price", [None, Price(), Price(input_in_pusd=5)])
def test_an_unknown_price_is_no_difference(caplog: pytest.LogCaptureFixture, price: Price | None):
    CostCheck(lambda: NOON).compare(endpoint(price=price), (), usage(5))
    assert not caplog.records


@given(st.integers(0, 10**15), st.integers(0, 10**15))
def test_the_bound_is_exact(stated: int, ours: int):
    assert differs(stated, ours) == (abs(stated - ours) > 1 and abs(stated - ours) / 1 > stated / 100)


def says_cost(cost: float):
    async def reply(_request: web.Request, seen) -> web.StreamResponse:
        counted = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100, "cost": cost}
        message = {"role": "assistant", "content": "Hi"}
        if not seen.body.get("stream"):
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            return web.json_response({"id": "x", "choices": [choice], "usage": counted})
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(_request)
        await response.write(b'data: {"choices":[{"index":0,"delta":{"content":"Hi"},"finish_reason":"stop"}]}\n\n')
        last = json.dumps({"choices": [], "usage": counted})
        await response.write(f"data: {last}\n\n".encode())
        await response.write(b"data: [DONE]\n\n")
        return response

    return reply


@pytest.mark.parametrize("stream", [False, True])
async def test_a_gateway_says_it_after_the_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture, stream: bool):
    caplog.set_level(logging.WARNING, "mixgate.cost")
    async with fake_provider(says_cost(0.0052)) as provider:
        config = (
            f"providers:\n  router:\n    dialect: openrouter\n    base_url: {provider.base_url}\n"
            "    api_key: env:K\n    models:\n      up: {serves: m, price: {input: 2, output: 6}}\n"
        )
        async with running_gateway(
            config, tmp_path, {"K": "sk-or-v1-0123456789", "MIXGATE_HOME": str(tmp_path)}
        ) as running:
            for _ in range(3):
                body = {"model": "m", "stream": stream, "messages": [{"role": "user", "content": "Hi"}]}
                answer = await running.client.post("/v1/chat/completions", json=body)
                assert answer.status_code == 200
                assert "Hi" in answer.text
    told = [record for record in caplog.records if record.name == "mixgate.cost"]
    assert len(told) == 1
    assert "0.005200000" in told[0].getMessage()
    assert "0.002600000" in told[0].getMessage()
