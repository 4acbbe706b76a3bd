"""A day of traffic whose every figure is known beforehand, in the dashboard, on the command line and in the metrics."""

import asyncio
import csv
import io
import json
import re
from decimal import Decimal

import pytest
from click.testing import CliRunner

from gateway.cache.storage import store_savings
from gateway.cli import main
from tests.fakes.duo import PREFILLING, Place, stage
from tests.fakes.gateway import chat
from tests.fakes.listener import listen
from tests.fakes.money import ASK, FAST, answers, leave_after, rows
from tests.fakes.scripted import STORY, TEXT, Tells, fails

CHAT = "/v1/chat/completions"
GUESS = 8
"""Tokens that we estimate the prompt of each request to have."""
SAID = 7
"""Tokens that the provider counts of it."""
PRICES = {0: "{input: 0.5, output: 2}", 1: "{input: 3, output: 15}"}
IN, OUT = {0: 500, 1: 3000}, {0: 2000, 1: 15_000}
"""In nano-USD per token."""
CUT, LEFT = 25, 12
"""Tokens after which the cut answer breaks off, and after which the client leaves."""
BLUE = {"x-title": "blue app", "x-mixgate-tags": "blue, all"}
RED = {"x-title": "red app", "x-mixgate-tags": "red, all"}
AGAIN = {"x-openrouter-cache": "true"}


def usage(prompt, output):
    return {"prompt_tokens": prompt, "completion_tokens": output, "total_tokens": prompt + output}


def spent(endpoint, prompt, output):
    return prompt * IN[endpoint] + output * OUT[endpoint]


FIRST = [
    answers(usage(1000, 100)),  # a good answer
    answers(usage(2000, 50)),  # another
    *(fails(500), fails(500)),  # a failover: a hiccup is repeated once, then the next is asked
    *(fails(500), answers(usage(300, 30))),  # a retry
    Tells(stop_after=CUT, how="close"),  # a rescue
    Tells(stop_after=LEFT, how="stall"),  # the client leaves
    answers(usage(400, 40)),  # an answer that is given again
    *(fails(500), fails(500)),  # nobody answers
]
SECOND = [answers(usage(500, 20)), Tells(prefill="openai"), fails(500)]

COSTS = {
    "good": spent(0, 1000, 100),
    "second": spent(0, 2000, 50),
    "failover": spent(1, 500, 20),
    "retry": spent(0, 300, 30),
    "cut": spent(0, GUESS, CUT),
    "added": spent(1, SAID + CUT, len(STORY) - CUT),
    "left": spent(0, GUESS, LEFT),
    "kept": spent(0, 400, 40),
}
"""What each part comes to, in nano-USD; what failed before its first content costs nothing."""
ALL = sum(COSTS.values())
BY_ENDPOINT = {
    # requests, attempts, failed, input tokens, output tokens, nano-USD
    "p0/up": (8, 11, 7, 1000 + 2000 + 300 + GUESS + GUESS + 400, 100 + 50 + 30 + CUT + LEFT + 40, 0),
    "p1/up": (0, 4, 2, 500 + SAID + CUT, 20 + len(STORY) - CUT, COSTS["failover"] + COSTS["added"]),
}
BY_ENDPOINT["p0/up"] = (*BY_ENDPOINT["p0/up"][:5], ALL - BY_ENDPOINT["p1/up"][5])
BY_APP = {"blue app": COSTS["good"] + COSTS["failover"], "red app": COSTS["second"]}
BY_TAG = {"blue": BY_APP["blue app"], "red": BY_APP["red app"], "all": sum(BY_APP.values())}


async def a_day(on):
    """The traffic, in the order of the scripts. Nothing is held against anybody in between."""

    async def ask(text="hi", status=200, **headers):
        response = await on.running.client.post(CHAT, json=chat(text), headers=headers)
        assert response.status_code == status, response.text
        on.running.forget()
        return response

    await ask(**BLUE)
    await ask(**RED)
    await ask(**BLUE)
    await ask()
    told = await listen(on.running.client, ASK)
    assert told.text == TEXT
    on.running.forget()
    await leave_after(on, LEFT)
    on.running.forget()
    for known in ("MISS", "HIT"):
        assert (await ask(**AGAIN)).headers["x-openrouter-cache-status"] == known
    failed = await on.running.client.post(CHAT, json=chat("hi"))
    assert failed.status_code >= 500


@pytest.fixture
async def day(tmp_path, monkeypatch):
    places = {number: Place("", price=price, capabilities=PREFILLING) for number, price in PRICES.items()}
    async with stage(tmp_path, FIRST, SECOND, places=places, limits=FAST) as on:
        await a_day(on)
        found = await rows(on)
        await store_savings(on.running.gateway.savings, on.running.gateway._store)
        assert await asyncio.to_thread(on.running.gateway._store.flush, 30.0)
        monkeypatch.setenv("MIXGATE_HOME", str(on.running.gateway._home))
        yield on, found


async def test_every_figure_of_a_day_is_the_one_worked_out_by_hand(day):
    on, found = day
    assert sum(row.cost_in_nusd for row in found) == ALL
    await check_sums(on)
    await check_series_and_overview(on)
    await check_what_requests_came_to(on)
    await check_rows(on)
    check_command_line()
    await check_metrics(on)


async def get(on, path, **query):
    response = await on.running.client.get(f"/dashboard/api/{path}", params=query)
    assert response.status_code == 200, response.text
    return response.json() if response.headers["content-type"] == "application/json" else response.text


def nusd(text):
    return Decimal(text) * 10**9


def figures(row):
    counts = tuple(int(row[name]) for name in ("requests", "attempts", "failed", "input_tokens", "output_tokens"))
    return (*counts, nusd(row["cost_usd"]))


async def check_sums(on):
    table = await get(on, "spend", by="endpoint")
    assert {row["name"]: figures(row) for row in table["data"]} == BY_ENDPOINT
    lines = csv.DictReader(io.StringIO(await get(on, "spend", by="endpoint", format="csv")))
    assert {line["name"]: figures(line) for line in lines} == BY_ENDPOINT
    assert figures(table["total"]) == tuple(map(sum, zip(*BY_ENDPOINT.values(), strict=True)))
    apps = {row["name"]: nusd(row["cost_usd"]) for row in (await get(on, "spend", by="app"))["data"]}
    assert apps == BY_APP | {"": ALL - sum(BY_APP.values())}
    tags = {row["name"]: nusd(row["cost_usd"]) for row in (await get(on, "spend", by="tag"))["data"]}
    assert tags == BY_TAG | {"": ALL - sum(BY_APP.values())}


async def check_series_and_overview(on):
    for by in ("model", "provider", "endpoint", "app", "route"):
        table = await get(on, "spend/series", by=by, step="hour", since="24h")
        assert sum(nusd(row["cost_usd"]) for row in table["data"]) == ALL
        assert sum(row["requests"] for row in table["data"]) == 8
    shown = await get(on, "overview")
    if shown["today"]["attempts"] == 15:  # else midnight, or the month's end, came in between
        assert nusd(shown["today"]["cost_usd"]) == ALL
        assert (shown["today"]["requests"], shown["today"]["failed"]) == (8, 9)
    assert shown["in_flight"] == 0
    assert (await get(on, "live"))["data"] == []


async def check_what_requests_came_to(on):
    saved = await get(on, "savings", since="24h")
    assert (saved["failovers"]["requests"], nusd(saved["failovers"]["wasted_usd"])) == (1, 0)
    assert (saved["rescues"]["requests"], nusd(saved["rescues"]["kept_usd"])) == (1, COSTS["cut"])
    assert (saved["retries"]["requests"], nusd(saved["retries"]["wasted_usd"])) == (1, 0)
    assert (saved["cache"]["requests"], nusd(saved["cache"]["saved_usd"])) == (1, COSTS["kept"])
    table = await get(on, "cost-distribution", since="24h")
    costs = [COSTS[name] for name in ("good", "second", "failover", "retry", "left", "kept")]
    costs += [COSTS["cut"] + COSTS["added"], 0]
    assert (table["requests"], table["unknown"]) == (8, 0)
    for row in table["data"]:
        begin, end = nusd(row["from_usd"]), nusd(row["to_usd"])
        inside = [cost for cost in costs if (begin <= cost < end if end else cost == 0)]
        assert (row["requests"], nusd(row["cost_usd"])) == (len(inside), sum(inside))
    assert sum(row["requests"] for row in table["data"]) == 8


async def check_rows(on):
    table = await get(on, "requests", count=100)
    assert sum(nusd(row["cost_usd"]) for row in table["data"]) == ALL
    cancelled = await get(on, "requests", outcome="cancelled")
    assert [nusd(row["cost_usd"]) for row in cancelled["data"]] == [COSTS["left"]]
    (cut,) = [row for row in table["data"] if row["outcome"] == "failed" and row["output_tokens"] == CUT]
    shown = await get(on, f"requests/{cut['id']}")
    assert nusd(shown["cost_usd"]) == COSTS["cut"] + COSTS["added"]
    assert (shown["rescued"]["cut"], shown["rescued"]["continued"]) == ("p0/up", "p1/up")
    assert [one["endpoint"] for one in shown["attempts"]] == ["p0/up", "p1/up"]
    for cost, name in zip(shown["costs"], ("cut", "added"), strict=True):
        assert nusd(cost["cost_usd"]) == sum(nusd(line["cost_usd"]) for line in cost["lines"]) == COSTS[name]
    assert [cost["cost_source"] for cost in shown["costs"]] == ["estimate", "price"]


def check_command_line():
    said = CliRunner().invoke(main, ["spend", "--by", "endpoint", "--json"])
    assert said.exit_code == 0, said.output
    assert {line["endpoint"]: figures(line) for line in json.loads(said.stdout)} == BY_ENDPOINT


async def check_metrics(on):
    text = (await on.running.client.get("/metrics")).text
    for endpoint, (_, attempts, failed, prompt, output, cost) in BY_ENDPOINT.items():
        assert nusd(total(text, "cost_usd", f'endpoint="{endpoint}"')) == cost
        assert total(text, "attempts", f'endpoint="{endpoint}"') == attempts
        good = total(text, "attempts", f'endpoint="{endpoint}",outcome="ok"')
        assert attempts - good == failed
        assert total(text, "tokens", f'endpoint="{endpoint}",kind="input"') == prompt
        assert total(text, "tokens", f'endpoint="{endpoint}",kind="output"') == output
    assert total(text, "rescues", "") == 1
    assert total(text, "cache_hits", "") == 1
    assert nusd(total(text, "cache_saved_usd", "")) == COSTS["kept"]


def total(text, name, labels):
    """The sum of a counter's samples whose labels begin so, from their digits."""
    samples = re.findall(rf"^mixgate_{name}_total\{{([^}}]*)\}} (\S+)$", text, re.MULTILINE)
    parts = labels.split(",") if labels else []
    return sum((Decimal(value) for given, value in samples if all(part in given for part in parts)), Decimal(0))
