"""By what an answer is billed, who is said to have asked, and that every account of it comes to the same."""

import asyncio
import json
import random
from fractions import Fraction

import pytest
from click.testing import CliRunner

from gateway.attempts import Limits
from gateway.cli import main
from gateway.health import answers as health_answers
from gateway.health import breaker, parking
from gateway.ledger.entry import TAGS_MAX, TEXT_MAX
from gateway.server.openai_request import decode_chat
from gateway.state.connection import FILE_NAME
from providers.tokens import guess_by_size, plain_size
from tests.fakes import scripted as scripts
from tests.fakes.duo import PREFILLING, Place, stage
from tests.fakes.engine import needs_engine
from tests.fakes.gateway import chat, running_gateway
from tests.fakes.listener import FULL, listen
from tests.fakes.money import (
    ASK,
    GUESSED,
    LEFT,
    ODD,
    ODD_PUSD,
    OK,
    REFUSED,
    WAIT_S,
    answers,
    ask_whole,
    cost,
    leave_after,
    odd,
    rows,
    said,
    told_cost,
    usd,
)
from tests.fakes.scripted import STORY, fails, tells
from tests.gateway.ledger.ledger_kit import rows_of, total_of


@pytest.fixture
def forgiving_health(monkeypatch):
    """Else whoever is broken is left alone after a few requests, and nothing more is seen of it."""
    for module, name, value in (
        (breaker, "FAILURES_MAX", 10**9),
        (breaker, "CONNECT_FAILURES_MAX", 10**9),
        (health_answers, "RATIO_LEAST", 10**9),
        (parking, "PARK_S", 0.01),
        (parking, "PARK_MAX_S", 0.01),
        (parking, "CAP_FIRST_SHARE", 100.0),
        (parking, "CAP_REST_S", 0.0),
    ):
        monkeypatch.setattr(module, name, value)


# ---- by what it is billed


DETAILED = {
    "prompt_tokens": 2000,
    "completion_tokens": 50,
    "total_tokens": 2050,
    "prompt_tokens_details": {"cached_tokens": 1500, "cache_write_tokens": 300},
    "completion_tokens_details": {"reasoning_tokens": 20},
}
CACHED = "{input: 0.123457, output: 0.654321, cache_read: 0.011111, cache_write: 0.222222, request: 0.000001}"


@pytest.mark.parametrize("stream", [False, True])
async def test_cached_and_written_tokens_have_prices_of_their_own(tmp_path, stream):
    async with stage(tmp_path, answers(DETAILED), places={0: Place("", price=CACHED)}) as on:
        told = await listen(on.running.client, ASK if stream else chat("hi"))
        (row,) = await rows(on)
    assert said(row) == OK
    assert (row.cached_tokens, row.cache_write_tokens, row.reasoning_tokens) == (1500, 300, 20)
    exact = cost(200, 50, read=(1500, 11_111), write=(300, 222_222), request=(1, 1_000_000))
    assert row.cost_in_nusd == exact
    assert told_cost(told.usage if stream else told.body["usage"]) == usd(exact)


@pytest.mark.parametrize(("prompt", "pusd"), [(1999, ODD_PUSD), (2000, (246_913, 1_308_641))])
async def test_long_prompts_are_billed_by_their_own_prices(tmp_path, prompt, pusd):
    price = (
        "{input: 0.123457, output: 0.654321, overrides: [{min_prompt_tokens: 2000, input: 0.246913, output: 1.308641}]}"
    )
    usage = {"prompt_tokens": prompt, "completion_tokens": 9, "total_tokens": prompt + 9}
    async with stage(tmp_path, answers(usage), places={0: Place("", price=price)}) as on:
        _, body = await ask_whole(on)
        (row,) = await rows(on)
    assert row.cost_in_nusd == cost(prompt, 9, pusd)
    assert told_cost(body["usage"]) == usd(row.cost_in_nusd)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_the_provider_says_that_it_charged_counts_more_than_our_prices(tmp_path, stream):
    usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15, "cost": 0.0123456789}
    places = {0: Place("", dialect="openrouter", price=ODD, more="api_key: env:K")}
    async with stage(tmp_path, answers(usage), places=places, env={"K": "key-of-the-test"}) as on:
        told = await listen(on.running.client, ASK if stream else chat("hi"))
        (row,) = await rows(on)
    assert said(row) == ("ok", "provider", "provider")
    assert row.cost_in_nusd == round(Fraction("0.0123456789") * 10**9)
    assert told_cost(told.usage if stream else told.body["usage"]) == usd(row.cost_in_nusd)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_nobody_knows_is_unknown_and_never_nothing(tmp_path, stream):
    async with stage(tmp_path, tells(), places={0: Place("", price="{input: 1}")}) as on:
        told = await listen(on.running.client, ASK if stream else chat("hi"))
        (row,) = await rows(on)
        assert said(row) == ("ok", "provider", "unknown")
        assert row.cost_in_nusd is None
        assert "cost" not in (told.usage if stream else told.body["usage"])
        total = total_of(tmp_path / "home" / FILE_NAME)
    assert (total.cost_in_nusd, total.unknown_cost) == (0, 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_what_costs_nothing_costs_zero_which_is_known(tmp_path, stream):
    async with stage(tmp_path, tells(), places={0: Place("", price="{input: 0, output: 0}")}) as on:
        told = await listen(on.running.client, ASK if stream else chat("hi"))
        (row,) = await rows(on)
    assert (said(row), row.cost_in_nusd) == (OK, 0)
    assert told_cost(told.usage if stream else told.body["usage"]) == 0


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("usage", [None, {"prompt_tokens": 11}, {"prompt_tokens": -5, "completion_tokens": -1}])
async def test_an_answer_that_nobody_counted_is_counted_here_and_says_so(tmp_path, stream, usage):
    text = "A rather plain sentence that should come to a dozen tokens or so."
    async with stage(tmp_path, answers(usage, text), places=odd(1)) as on:
        await listen(on.running.client, ASK if stream else chat("hi"))
        (row,) = await rows(on)
    assert said(row) == ("ok", "estimate", "estimate")
    assert row.input_tokens == (11 if usage and usage["prompt_tokens"] > 0 else row.prompt_tokens)
    assert 8 <= row.output_tokens <= 24
    assert row.cost_in_nusd == cost(row.input_tokens, row.output_tokens)


LOCAL = """
providers:
  local:
    dialect: local
    models:
      tiny: {file: bundled, serves: demo, context_tokens: 2048, capabilities: {system: true}}
"""


@needs_engine
async def test_what_this_machine_answers_costs_nothing_and_is_counted(tmp_path):
    async with running_gateway(LOCAL, tmp_path) as running:
        for stream in (False, True):
            told = await listen(running.client, ASK | {"model": "demo", "max_tokens": 8, "stream": stream})
            assert told.status == 200, told.body
            assert told_cost(told.usage if stream else told.body["usage"]) == 0
        assert await asyncio.to_thread(running.gateway._store.flush, WAIT_S)
    found = rows_of(tmp_path / "home" / FILE_NAME).values()
    assert [(said(row), row.cost_in_nusd, row.endpoint) for row in found] == [(OK, 0, "local/tiny")] * 2
    assert all(row.input_tokens > 0 and 0 < row.output_tokens <= 8 for row in found)


# ---- who asked


SECRET = "canary-of-a-prompt-9f2b"
ANSWER = "canary-of-an-answer-71c0"


async def test_whoever_asks_is_kept_as_text_within_bounds_and_nothing_that_was_said(tmp_path):
    async with stage(tmp_path, answers(None, ANSWER), places=odd(1)) as on:
        headers = {
            "http-referer": "https://app.example/" + "r" * 5000,
            "x-title": "Older",
            "x-openrouter-title": "'); DROP TABLE entry; --",
            "x-session-id": "s-header",
            "x-mixgate-tags": ",".join(["b", "a", "", "b", " c "] + [f"t{n}" for n in range(100)]),
        }
        body = chat(SECRET, user="u\u0000\u20ac" + "x" * (TEXT_MAX - 3), metadata={"k": SECRET})
        response = await on.running.client.post("/v1/chat/completions", json=body, headers=headers)
        assert response.status_code == 200, response.text
        await on.running.client.post(
            "/api/v1/chat/completions",
            json=chat(SECRET, user="second", session_id="s-body"),
            headers={"x-title": "Title", "x-session-id": "s-header"},
        )
        first, second = await rows(on)
        kept = {path.name: path.read_bytes() for path in (tmp_path / "home").rglob("*") if path.is_file()}
    assert first.app == "'); DROP TABLE entry; --"
    assert first.referer == ("https://app.example/" + "r" * 5000)[:TEXT_MAX]
    assert first.user == "u\0\u20ac" + "x" * (TEXT_MAX - 3)
    assert first.session == "s-header"
    tags = json.loads(first.tags)
    assert tags[:3] == ["b", "a", "c"]
    assert len(tags) == TAGS_MAX == len(set(tags))
    assert all(len(tag) <= TEXT_MAX and (tag in "abc" or tag[1:].isdecimal()) for tag in tags)
    assert (second.app, second.user, second.session, second.tags) == ("Title", "second", "s-body", "")
    assert FILE_NAME in kept
    for name, data in kept.items():
        assert SECRET.encode() not in data, name
        assert ANSWER.encode() not in data, name
    assert total_of(tmp_path / "home" / FILE_NAME).attempts == 2


# ---- all of it together


COUNT = 1000 if FULL else 200
PICO_PER_NANO = 1000


def charges_prompt(script):
    """Whoever reads the prompt bills it, whatever it makes of it."""

    async def billing(talk):
        talk.bill(scripts.PROMPT_TOKENS, 0)
        await script(talk)

    return billing


def drawn(dice, after):
    """A provider of which much can be expected, and all that it bills can be known exactly."""

    async def script(talk):
        made = talk.call.body.get("user", "")
        if made.startswith("leaves"):
            await tells(stop_after=after, how="stall")(talk)
        elif (number := dice.random()) < 0.55:
            await tells(prefill="openai")(talk)
        elif number < 0.75:
            await dice.choice((fails(500), fails(503), fails(429, retry_after_ms="5")))(talk)
        elif number < 0.9 and talk.call.body.get("stream"):
            stop = dice.randrange(1, len(STORY))
            await tells(stop_after=stop, how=dice.choice(("close", "end", "error")), prefill="openai")(talk)
        elif number < 0.95:
            await charges_prompt(fails(200, "<html>busy</html>"))(talk)
        else:
            await tells(prefill="openai")(talk)

    return script


async def ask_one(on, number, dice):
    """One of many; gives the id of its generation and what it was told that it cost, where it was told."""
    drawn = dice.random()
    if drawn < 0.1:
        await leave_after(on, 5, user=f"leaves-{number}")
        return None
    body = (ASK if drawn < 0.6 else chat("hi")) | {"user": f"u-{number}"}
    told = await listen(on.running.client, body, dice.choice(("/v1", "/api/v1")) + "/chat/completions")
    usage = told.body.get("usage") if told.body else told.usage
    if told.status == 200 and told.error is None:
        assert usage is not None
        return told.headers["x-generation-id"], told_cost(usage)
    return None


def run(folder, *words):
    done = CliRunner().invoke(main, [*words], env={"MIXGATE_HOME": str(folder / "home")}, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return json.loads(done.output)


UNSEEN_IN_NUSD = 60 * 2_000
"""All of an answer's tokens."""


async def test_what_many_requests_cost_is_the_same_by_every_account(tmp_path, monkeypatch, forgiving_health):
    request = decode_chat(json.dumps(ASK).encode())
    monkeypatch.setattr(scripts, "PROMPT_TOKENS", guess_by_size(plain_size(request), 1))
    dice = random.Random(5)
    providers = (drawn(dice, 5), drawn(dice, 5), tells(prefill="openai"))
    places = {n: Place("", price="{input: 1, output: 2}", capabilities=PREFILLING) for n in range(3)}
    route = "policy: balanced"
    async with stage(tmp_path, *providers, places=places, route=route, limits=Limits()) as on:
        told = []
        for start in range(0, COUNT, 20):
            told += await asyncio.gather(*(ask_one(on, start + one, dice) for one in range(20)))
        found = await rows(on)
        bills = {f"p{n}": provider.billed_pusd for n, provider in enumerate(on.providers)}
    by_generation = {}
    for row in found:
        by_generation.setdefault(row.attempt_id.partition("/")[0], []).append(row)
    told = dict(one for one in told if one is not None)
    for name, said_usd in told.items():
        assert said_usd == usd(sum(row.cost_in_nusd for row in by_generation[name])), name
    home = tmp_path
    explained = [run(home, "explain", name, "--json") for name in sorted(told)[:: COUNT // 20]]
    for record in explained:
        assert record["cost_in_nusd"] == sum(row.cost_in_nusd for row in by_generation[record["id"]])
    spent = {line["provider"]: line for line in run(home, "spend", "--by", "provider", "--since", "1d", "--json")}
    (total,) = run(home, "spend", "--by", "all", "--since", "1d", "--json")
    for name, billed in bills.items():
        ours = [row for row in found if row.provider == name]
        assert billed % PICO_PER_NANO == 0
        booked = sum(row.cost_in_nusd for row in ours)
        # What a provider still sent to a client that was leaving, nobody here has seen: nothing on an idle machine.
        left = sum(row.outcome == "cancelled" for row in ours)
        assert 0 <= billed // PICO_PER_NANO - booked <= left * UNSEEN_IN_NUSD, name
        assert Fraction(spent[name]["cost_usd"]) == Fraction(booked, 10**9)
        assert spent[name]["attempts"] == len(ours)
    assert Fraction(total["cost_usd"]) == Fraction(sum(row.cost_in_nusd for row in found), 10**9)
    assert (total["requests"], total["unknown_cost"]) == (COUNT, 0)
    outcomes = {said(row) for row in found}
    assert outcomes >= {OK, REFUSED, GUESSED, LEFT}
