"""Every attempt that a provider saw is one row of the ledger, with the right cost. The fakes' logs are the oracle."""

import asyncio
import json

import pytest
from click.testing import CliRunner

from gateway.attempts import Limits
from gateway.cli import main
from gateway.config.load import load
from gateway.explain.record import decode
from gateway.state.connection import FILE_NAME
from gateway.state.ledger_reader import LedgerReader
from gateway.state.reader import Reader
from providers.errors import UnsupportedError
from tests.fakes.duo import Place, stage
from tests.fakes.gateway import chat
from tests.fakes.listener import listen
from tests.fakes.money import (
    ASK,
    FAST,
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
from tests.fakes.provider import PRICE_OUTPUT_PUSD
from tests.fakes.scripted import STORY, TEXT, fails, resets, silent, streams, tells
from tests.gateway.ledger.ledger_kit import rows_of

# ---- how an attempt ends


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("surface", ["/v1", "/api/v1"])
async def test_a_good_answer_is_billed_by_the_providers_count_and_says_what_it_cost(tmp_path, stream, surface):
    async with stage(tmp_path, tells(), places=odd()) as on:
        body = ASK if stream else chat("hi")
        told = await listen(on.running.client, body, f"{surface}/chat/completions")
        (row,) = await rows(on)
    usage = told.usage if stream else told.body["usage"]
    assert said(row) == OK
    assert (row.input_tokens, row.output_tokens, row.stream) == (7, len(STORY), stream)
    assert row.cost_in_nusd == cost(7, len(STORY))
    assert told_cost(usage) == usd(row.cost_in_nusd)
    assert row.attempt_id == f"{told.headers['x-generation-id']}/1"
    assert (row.route, row.model, row.endpoint, row.provider) == ("m", "m", "p0/up", "p0")
    assert row.surface == ("openai" if surface == "/v1" else "openrouter")
    assert row.duration_ms >= (row.ttft_ms or 0)
    assert row.upstream_id == "chatcmpl-s"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("bad", [fails(500), fails(429), fails(503), fails(400), resets()], ids=lambda _: "")
async def test_who_refused_or_dropped_it_is_a_row_that_costs_nothing(tmp_path, bad, stream):
    async with stage(tmp_path, bad, tells(), places=odd()) as on:
        told = await listen(on.running.client, ASK if stream else chat("hi"))
        *failed, good = await rows(on) if told.status == 200 else [*(await rows(on)), None]
    for row in failed:
        assert said(row) == REFUSED
        assert row.cost_in_nusd == 0
        assert row.code
        assert row.input_tokens is None
    if good is not None:
        assert said(good) == OK
        usage = told.usage if stream else told.body["usage"]
        assert told_cost(usage) == usd(good.cost_in_nusd) == usd(cost(7, len(STORY)))


async def test_nobody_at_the_address_costs_nothing(tmp_path):
    places = odd() | {0: Place("http://127.0.0.1:1/v1", price=ODD)}
    async with stage(tmp_path, tells(), tells(), places=places) as on:
        told = await listen(on.running.client, ASK)
        assert told.complete
        await asyncio.to_thread(on.running.gateway._store.flush, WAIT_S)
        found = [*rows_of(tmp_path / "home" / FILE_NAME).values()]
    assert sorted(map(said, found)) == sorted([REFUSED, OK])
    assert sum(row.cost_in_nusd for row in found) == cost(7, len(STORY))


async def test_the_same_endpoint_twice_is_two_rows(tmp_path):
    async with stage(tmp_path, [fails(503), tells()], places=odd()) as on:
        told = await listen(on.running.client, ASK)
        first, second = await rows(on)
    assert told.complete
    assert (said(first), said(second)) == (REFUSED, OK)
    assert first.endpoint == second.endpoint
    assert first.attempt_id.removesuffix("/1") == second.attempt_id.removesuffix("/2")
    assert told_cost(told.usage) == usd(second.cost_in_nusd)


@pytest.mark.parametrize("how", ["close", "error", "stall"])
@pytest.mark.parametrize("prefill", [True, False], ids=["prefill", "again"])
async def test_a_rescued_answer_is_what_was_cut_and_what_was_added(tmp_path, how, prefill):
    places = odd() if prefill else odd(capabilities=("system",))
    second = tells(prefill="openai") if prefill else tells()
    async with stage(tmp_path, tells(stop_after=25, how=how), second, places=places, limits=FAST) as on:
        told = await listen(on.running.client, ASK)
        cut, added = await rows(on)
        call = on.providers[1].calls[0]
    assert told.complete
    assert told.text == TEXT
    assert said(cut) == GUESSED
    assert cut.output_tokens == 25
    assert cut.cost_in_nusd == cost(cut.prompt_tokens, 25)
    assert said(added) == OK
    assert added.output_tokens == call.output_tokens, "what the second was asked to write, not what was there before"
    assert added.cost_in_nusd == cost(7 + len(STORY) - call.output_tokens, call.output_tokens)
    assert told_cost(told.usage) == usd(cut.cost_in_nusd + added.cost_in_nusd)


@pytest.mark.parametrize("how", ["close", "error", "stall", "end"])
async def test_an_answer_that_is_cut_for_good_is_billed_as_far_as_it_came(tmp_path, how):
    route = "policy: ordered, rescue: false"
    async with stage(tmp_path, tells(stop_after=30, how=how), places=odd(1), route=route, limits=FAST) as on:
        told = await listen(on.running.client, ASK)
        (row,) = await rows(on)
    assert told.error
    assert said(row) == GUESSED
    assert row.output_tokens == 30
    assert row.cost_in_nusd == cost(row.prompt_tokens, 30)


async def test_a_second_cut_is_billed_for_its_own_part(tmp_path):
    cuts = tells(stop_after=20, how="close"), tells(stop_after=15, how="close", prefill="openai")
    async with stage(tmp_path, *cuts, places=odd(), limits=FAST) as on:
        told = await listen(on.running.client, ASK)
        first, second = await rows(on)
    assert told.error
    assert (said(first), said(second)) == (GUESSED, GUESSED)
    sent = [call.output_tokens for provider in on.providers for call in provider.calls]
    assert [first.output_tokens, second.output_tokens] == sent == [20, 15]


async def test_a_client_that_leaves_before_content_is_billed_for_the_prompt(tmp_path):
    for stream in (True, False):
        folder = tmp_path / str(stream)
        folder.mkdir()
        async with stage(folder, silent(head=stream), places=odd(1), limits=Limits()) as on:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.5):
                    await listen(on.running.client, ASK if stream else chat("hi"))
            (row,) = await rows(on)
        assert said(row) == LEFT
        assert (row.code, row.output_tokens) == ("cancelled", 0)
        assert row.cost_in_nusd == cost(row.prompt_tokens, 0)


@pytest.mark.parametrize("route", ["policy: ordered", "policy: ordered, rescue: false"])
async def test_a_client_that_leaves_in_the_middle_is_billed_for_what_it_had(tmp_path, route):
    async with stage(tmp_path, tells(stop_after=12, how="stall"), places=odd(1), route=route, limits=Limits()) as on:
        await leave_after(on, 12)
        (row,) = await rows(on)
    assert said(row) == LEFT
    assert row.output_tokens == 12
    assert row.cost_in_nusd == cost(row.prompt_tokens, 12)


async def test_a_client_that_leaves_a_rescue_is_billed_for_both_parts(tmp_path):
    second = tells(prefill="openai", stop_after=10, how="stall")
    async with stage(tmp_path, tells(stop_after=20, how="close"), second, places=odd(), limits=Limits()) as on:
        await leave_after(on, 29)
        await asyncio.sleep(0.05)
        first, second = await rows(on)
    assert (said(first), said(second)) == (GUESSED, LEFT)
    assert (first.output_tokens, second.output_tokens) == (20, 10)


@pytest.mark.parametrize("stream", [False, True])
async def test_who_is_silent_too_long_has_read_the_prompt(tmp_path, stream):
    limits = FAST if stream else Limits(whole_timeout_s=0.5)
    async with stage(tmp_path, silent(head=True), tells(), places=odd(), limits=limits) as on:
        told = await listen(on.running.client, ASK if stream else chat("hi"))
        first, second = await rows(on)
    assert told.status == 200
    assert said(first) == GUESSED
    assert first.code == "first_token_timeout"
    assert first.cost_in_nusd == cost(first.prompt_tokens, 0)
    assert said(second) == OK
    usage = told.usage if stream else told.body["usage"]
    assert told_cost(usage) == usd(first.cost_in_nusd + second.cost_in_nusd)


@pytest.mark.parametrize("body", ["<html>hello</html>", {"hello": 1}, {"error": {"message": "no", "code": 500}}])
async def test_nonsense_with_a_200_may_have_cost_the_prompt(tmp_path, body):
    async with stage(tmp_path, fails(200, body), tells(), places=odd(), limits=FAST) as on:
        response, _ = await ask_whole(on)
        *nonsense, good = await rows(on)
    assert response.status_code == 200
    assert said(good) == OK
    assert nonsense
    for row in nonsense:
        # An error that it calls one costs nothing, however it is packed.
        assert (said(row), row.cost_in_nusd) == (
            (REFUSED, 0) if "error" in body else (GUESSED, cost(row.prompt_tokens, 0))
        )


async def test_a_stream_that_is_asked_for_a_whole_answer_is_estimated_where_it_is_cut(tmp_path):
    route = "policy: ordered, upcast: true"
    cut = tells(stop_after=33, how="close")
    async with stage(tmp_path, cut, tells(), places=odd(), route=route, limits=FAST) as on:
        response, body = await ask_whole(on)
        first, second = await rows(on)
    assert response.status_code == 200
    assert all(call.body["stream"] for one in on.providers for call in one.calls)
    assert (said(first), said(second)) == (GUESSED, OK)
    assert first.output_tokens == 33
    assert told_cost(body["usage"]) == usd(first.cost_in_nusd + second.cost_in_nusd)
    assert not first.stream, "as the client asked"


async def test_the_slower_of_two_that_are_asked_at_once_is_a_row_too(tmp_path):
    places = {number: Place("", price="{input: 0.1, output: 0.1}") for number in range(2)}
    turns = [*[tells()] * 40, tells(late_s=20.0)]
    route = "policy: ordered, hedge: true"
    async with stage(tmp_path, turns, tells(), places=places, route=route, limits=Limits()) as on:
        for _ in range(40):
            assert (await listen(on.running.client, ASK)).complete
        told = await listen(on.running.client, ASK)
        found = await rows(on)
    assert told.complete
    lost, won = (row for row in found if row.attempt_id.startswith(told.headers["x-generation-id"]))
    assert said(lost) == LEFT
    assert said(won) == OK
    assert (lost.endpoint, won.endpoint) == ("p0/up", "p1/up")
    assert lost.cost_in_nusd == cost(lost.prompt_tokens, 0, (100_000, 100_000))
    assert told_cost(told.usage) == usd(lost.cost_in_nusd + won.cost_in_nusd)


async def test_an_answer_that_had_to_be_mended_is_two_rows_by_the_providers_count(tmp_path):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "required": ["a"]}}}
    bad = answers({"prompt_tokens": 21, "completion_tokens": 3, "total_tokens": 24}, '{"b": 1}')
    good = answers({"prompt_tokens": 40, "completion_tokens": 4, "total_tokens": 44}, '{"a": 1}')
    for stream in (False, True):
        folder = tmp_path / str(stream)
        folder.mkdir()
        async with stage(folder, [bad, good], places=odd(1, capabilities=("system",))) as on:
            told = await listen(on.running.client, (ASK if stream else chat("hi")) | {"response_format": form})
            first, second = await rows(on)
        assert told.status == 200
        assert (said(first), said(second)) == (OK, OK)
        assert (first.cost_in_nusd, second.cost_in_nusd) == (cost(21, 3), cost(40, 4))
        usage = told.usage if stream else told.body["usage"]
        assert told_cost(usage) == usd(cost(21, 3) + cost(40, 4))


async def test_an_answer_of_no_use_was_counted_all_the_same(tmp_path):
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object", "required": ["a"]}}}
    prose = answers({"prompt_tokens": 21, "completion_tokens": 3, "total_tokens": 24}, "I like prose.")
    async with stage(tmp_path, prose, places=odd(1, capabilities=("system",))) as on:
        response, _ = await ask_whole(on, response_format=form)
        found = await rows(on)
    assert response.status_code == 502
    assert [(row.usage_source, row.cost_in_nusd) for row in found] == [("provider", cost(21, 3))] * 2


async def test_what_cannot_even_be_sent_costs_nothing(tmp_path, monkeypatch):
    async with stage(tmp_path, tells(), tells(), places=odd()) as on:
        dialect = on.running.gateway._fleet.upstreams["p0/up"].dialect
        encode, first = type(dialect).encode, []

        def refuse(self, request, endpoint, **facts):
            if endpoint.id == "p0/up":
                first.append(1)
                raise UnsupportedError("it cannot be asked so")
            return encode(self, request, endpoint, **facts)

        monkeypatch.setattr(type(dialect), "encode", refuse)
        told = await listen(on.running.client, ASK)
        assert told.complete
        assert first
        await asyncio.to_thread(on.running.gateway._store.flush, WAIT_S)
        found = rows_of(tmp_path / "home" / FILE_NAME)
    unsent, good = (found[name] for name in sorted(found))
    assert (said(unsent), unsent.cost_in_nusd) == (REFUSED, 0)
    assert said(good) == OK


async def test_of_a_cut_answer_the_prompt_is_as_the_provider_counted_it(tmp_path):
    start = {"id": "msg-1", "model": "x", "role": "assistant", "content": [], "type": "message"}
    start["usage"] = {"input_tokens": 900, "cache_read_input_tokens": 100, "output_tokens": 1}
    said_so_far = (
        {"type": "message_start", "message": start},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        *(
            {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": f" w{n}"}}
            for n in range(9)
        ),
    )
    parts = (f"event: {one['type']}\ndata: {json.dumps(one)}\n\n".encode() for one in said_so_far)
    price = "{input: 0.123457, output: 0.654321, cache_read: 0.011111}"
    places = {0: Place("", dialect="anthropic", price=price, more="api_key: env:K")}
    async with stage(tmp_path, streams(*parts), places=places, env={"K": "key-of-the-test"}) as on:
        told = await listen(on.running.client, ASK | {"max_tokens": 99})
        (row,) = await rows(on)
    assert told.error
    assert said(row) == GUESSED
    assert (row.input_tokens, row.cached_tokens, row.output_tokens) == (1000, 100, 9)
    assert row.cost_in_nusd == cost(900, 9, read=(100, 11_111))
    assert row.upstream_id == "msg-1"


async def test_an_answer_that_our_own_end_cuts_is_a_row(tmp_path):
    async with stage(tmp_path, tells(stop_after=14, how="stall"), places=odd(1), limits=Limits()) as on:
        asking = asyncio.create_task(listen(on.running.client, ASK))
        while on.providers[0].billed_pusd < 14 * PRICE_OUTPUT_PUSD:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
    told = await asking
    assert told.error["code"] == "server_shutdown"
    path = tmp_path / "home" / FILE_NAME
    (row,) = rows_of(path).values()
    assert said(row) == LEFT
    assert (row.code, row.output_tokens) == ("server_shutdown", 14)
    assert row.cost_in_nusd == cost(row.prompt_tokens, 14)
    with Reader(path) as reader:
        ((_, data),) = reader.newest_records(1)
    record = decode(data)
    assert (record.outcome, record.code) == ("failed", "server_shutdown")
    assert [(one.outcome, one.code) for one in record.attempts] == [("cancelled", "server_shutdown")]
    assert record.cost_in_nusd == row.cost_in_nusd
    assert (
        "failed with server_shutdown"
        in CliRunner().invoke(main, ["explain", "last"], env={"MIXGATE_HOME": str(path.parent)}).output
    )


async def test_each_attempt_is_billed_by_the_prices_with_which_it_began(tmp_path):
    slow = tells(late_s=0.3)
    async with stage(tmp_path, [tells(), slow, tells()], places=odd(1)) as on:
        gateway = on.running.gateway
        await listen(on.running.client, ASK)
        asking = asyncio.create_task(listen(on.running.client, ASK))
        while len(on.providers[0].calls) < 2:  # noqa: ASYNC110  # nobody tells
            await asyncio.sleep(0.01)
        path = tmp_path / "providers.yaml"
        path.write_text(path.read_text().replace("0.654321", "9.000001"))
        gateway.replace(load(path, {}))
        await asking
        await listen(on.running.client, ASK)
        found = await rows(on)
        with LedgerReader(tmp_path / "home" / FILE_NAME) as reader:
            snapshots = [reader.price(row.price_id) for row in found]
    dearer = (ODD_PUSD[0], 9_000_001)
    assert [row.cost_in_nusd for row in found] == [cost(7, len(STORY), pusd) for pusd in (ODD_PUSD, ODD_PUSD, dearer)]
    assert [one.endpoint for one in snapshots] == ["p0/up"] * 3
    assert ["9000001" in one.data for one in snapshots] == [False, False, True]
