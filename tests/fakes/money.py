"""What a request should have cost, and the rows of the ledger that say what it did."""

import asyncio
import json
from fractions import Fraction

from gateway.attempts import Limits
from gateway.state.connection import FILE_NAME
from tests.fakes.duo import PREFILLING, Place
from tests.fakes.gateway import chat
from tests.fakes.scripted import chunk, streams
from tests.gateway.ledger.ledger_kit import rows_of

WAIT_S = 30.0
ODD = "{input: 0.123457, output: 0.654321}"
"""USD per million tokens, so that a sum has a rest to be rounded."""
ODD_PUSD = (123_457, 654_321)
ASK = chat("hi", stream=True, stream_options={"include_usage": True})
OK = ("ok", "provider", "price")
REFUSED = ("failed", "none", "none")
GUESSED = ("failed", "estimate", "estimate")
LEFT = ("cancelled", "estimate", "estimate")
FAST = Limits(first_token_timeout_s=0.3, idle_timeout_s=0.3, rescue_idle_timeout_s=0.3, after_finish_timeout_s=0.3)


def cost(prompt, output, pusd=ODD_PUSD, **others):
    """Exact, in nano-USD, rounded half to even as Fractions are; `others` are pairs of a count and its price."""
    exact = Fraction(prompt * pusd[0] + output * pusd[1] + sum(count * price for count, price in others.values()), 1000)
    return round(exact)


def odd(count=2, **facts):
    return {number: Place("", **({"price": ODD, "capabilities": PREFILLING} | facts)) for number in range(count)}


async def rows(on):
    """All rows, once nothing is on its way, in the order of attempts."""
    books = on.running.gateway.engine.books
    async with asyncio.timeout(WAIT_S):
        while books.in_flight or any(provider.running for provider in on.providers):  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
    assert await asyncio.to_thread(on.running.gateway._store.flush, WAIT_S)
    assert books.repeated == 0
    found = rows_of(on.running.gateway._home / FILE_NAME)
    seen = sum(on.tries)
    assert len(found) == seen, "one row for each attempt that a provider saw"
    for number, provider in enumerate(on.providers):
        assert sum(row.endpoint == f"p{number}/up" for row in found.values()) == len(provider.calls)
    return [found[name] for name in sorted(found)]


def said(row):
    return row.outcome, row.usage_source, row.cost_source


def usd(nusd):
    return Fraction(nusd, 10**9)


def told_cost(usage):
    return Fraction(str(usage["cost"]))


async def ask_whole(on, **members):
    response = await on.running.client.post("/v1/chat/completions", json=chat("hi", **members))
    return response, response.json()


async def leave_after(on, tokens, **members):
    """Read so many tokens and hang up."""
    async with on.running.client.stream("POST", "/v1/chat/completions", json=ASK | members) as response:
        heard = 0
        async for line in response.aiter_lines():
            heard += '"content":' in line and '"content":""' not in line
            if heard >= tokens:
                return


def answers(usage, text="Fine.", **members):
    """An answer of one piece with this usage, whole or as a stream."""

    async def script(talk):
        if talk.call.body.get("stream"):
            await streams(
                chunk({"role": "assistant", "content": text}),
                chunk({}, "stop"),
                0.02,
                *([chunk({}, usage=usage, **members)] if usage else []),
                0.02,
                b"data: [DONE]\n\n",
            )(talk)
            return
        message = {"role": "assistant", "content": text}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        body = {"id": "up-1", "object": "chat.completion", "created": 1, "model": "x", "choices": choices, **members}
        body |= {"usage": usage} if usage else {}
        await talk.whole(200, json.dumps(body).encode(), "application/json", {})

    return script
