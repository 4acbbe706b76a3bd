"""The record of a request: what it holds, what it never holds, and that deciding by it again gives the same Plan."""

import json
import random
import struct
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.attempts import Attempt
from gateway.config.catalogue import Catalogue
from gateway.config.load import load
from gateway.explain.errors import UnreadableRecordError
from gateway.explain.record import Record, Rescued, decode, encode
from gateway.explain.replay import differences, replay, whole
from gateway.explain.static import TABLES_MAX, Statics, make_static, read_static
from gateway.explain.trace import STATIC_TOLD_S, Packer, Trace, decision_of, record_of
from gateway.explain.view import explanation_of, usd_from_pico
from gateway.explain.words import outcome_of, table_text
from gateway.observation import UNOBSERVED, Observation, Quantiles, Standing
from gateway.routing.ask import Ask, Cutoffs, Preferences, PriceLimit
from gateway.routing.candidate import Candidate, Plan
from gateway.routing.decide import decide
from gateway.routing.table import Table, prepare
from gateway.state.blocks import Packed
from gateway.state.connection import FILE_NAME
from gateway.state.store import Store
from providers.base import Adaptation
from providers.messages import Usage

KEY = "sk-planted-0123456789abcdef"
CONFIG = """\
providers:
  one:
    dialect: openai
    base_url: http://user-of-one.example.com/v1
    api_key: env:ONE_KEY
    models:
      a: {serves: m, context_tokens: 100000, price: {input: 0.5, output: 12}, capabilities: {tools: true}}
      b: {serves: m, context_tokens: 10000, price: {input: 0.4, output: 11}, max_output_tokens: 4000}
      c: {serves: m, context_tokens: 32000}
      gone: {serves: m, state: retired}
  two:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models:
      a:
        serves: m
        context_tokens: 64000
        price: {input: 0.3, output: 9, overrides: [{utc_start: "08:00", utc_end: "20:00", input: 3}]}
      z: {serves: n, context_tokens: 200000, price: {input: 5, output: 20}}
routes:
  m: {policy: balanced, fallback: [n]}
  cheap: {policy: price, endpoints: [one/a, one/b, two/a]}
  fixed: {policy: ordered, endpoints: [two/a, one/a, one/c]}
  quick: {policy: latency, endpoints: [two/a, one/a, one/c]}
"""
STANDINGS: tuple[Standing, ...] = ("healthy", "degraded", "probing", "parked", "open", "disabled")
NOW_S = 1234.5678901234


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    path = tmp_path_factory.mktemp("config") / "providers.yaml"
    path.write_text(CONFIG)
    return load(path, {"ONE_KEY": KEY})


def table_of(catalogue: Catalogue, *names: str, off: Mapping[str, str] | None = None) -> Table:
    routes = [route for name in names if (route := catalogue.find_route(name)) is not None]
    return prepare(routes, catalogue, off or {})


def trace_of(table: Table, ask: Ask, seen: Mapping[str, Observation], draw: float = 0.25, **changes: Any) -> Trace:
    now_utc = datetime(2026, 11, 22, 10, 30, 15, 123456, tzinfo=UTC)
    plan = decide(table, ask, seen, now_s=NOW_S, draw=draw, now_utc=now_utc)
    facts: dict[str, Any] = {
        "id": "gen-01M80N33M1W9MH97QD81PN993C",
        "unix_s": now_utc.timestamp(),
        "requested": (table.route,),
        "surface": "chat.completions",
        "caller": "me",
        "ask": ask,
        "table": table,
        "observations": seen,
        "draw": draw,
        "now_s": NOW_S,
        "now_utc": now_utc,
        "catalogue": "c" * 64,
        "plan": plan,
        "attempts": (),
        "outcome": "ok",
        "code": None,
        "ended_s": NOW_S + 1.2344,
    }
    return Trace(**(facts | changes))


def stored(trace: Trace) -> tuple[Record, Table]:
    """As another process would read it."""
    packed = Packer()(trace)
    assert packed.static is not None
    return decode(packed.data), read_static(packed.static.data)


def same_plan(one: Plan, other: Plan) -> bool:
    """Equal in everything but the facts about Endpoints that are not stored."""

    def bare(plan: Plan) -> Any:
        return [
            [(c.endpoint.id, c.observation, c.stage, c.expected_cost_in_pusd, c.score, c.panic) for c in group]
            for group in (plan.candidates, plan.resting)
        ]

    fields = ("route", "policy", "excluded", "explicit", "emulate", "rescue", "upcast", "hedge")
    return bare(one) == bare(other) and all(getattr(one, name) == getattr(other, name) for name in fields)


figures = st.floats(0.001, 1000) | st.none()
quantiles = st.builds(Quantiles, *[st.floats(0, 500)] * 4) | st.none()
observations = st.just(UNOBSERVED) | st.builds(
    Observation,
    standing=st.sampled_from(STANDINGS),
    until_s=st.floats(NOW_S - 10, NOW_S + 10),
    outage=st.booleans(),
    weight=st.floats(0, 1),
    in_flight=st.integers(0, 50),
    cap=st.integers(1, 50) | st.none(),
    ttft_s=figures,
    tokens_per_s=figures,
    uptime=st.floats(0, 1) | st.none(),
    latency=quantiles,
    throughput=quantiles,
)
cutoffs = st.builds(Cutoffs, p50=figures, p99=figures) | st.none()
preferences = st.builds(
    Preferences,
    order=st.lists(st.sampled_from(["one", "two", "one/a", "nobody"]), max_size=3, unique=True).map(tuple),
    allow_fallbacks=st.booleans(),
    require_parameters=st.booleans(),
    only=st.sampled_from([(), ("one",), ("two", "one")]),
    ignore=st.sampled_from([(), ("two/a",)]),
    sort=st.sampled_from([None, "price", "throughput", "latency", "exacto"]),
    across_models=st.booleans(),
    min_throughput=cutoffs,
    max_latency=cutoffs,
    max_price=st.none() | st.builds(PriceLimit, input_in_pusd=st.integers(0, 10**7)),
)
asks = st.builds(
    Ask,
    needed=st.sampled_from([(), ("tools",), ("vision",)]),
    prompt_tokens=st.integers(0, 150_000),
    output_tokens=st.integers(1, 9000) | st.none(),
    stream=st.booleans(),
    preferences=preferences,
    losses=st.sampled_from([(), (("one/a", ("seed", "logit_bias")),)]),
    warm_endpoint=st.sampled_from([None, "one/a"]),
    warm_tokens=st.integers(0, 1000),
    budget_in_nusd=st.none() | st.integers(0, 10**10),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.sampled_from([("m",), ("cheap",), ("fixed",), ("quick",), ("m", "cheap"), ("one/a",)]),
    ask=asks,
    seen=st.dictionaries(st.sampled_from(["one/a", "one/b", "one/c", "two/a", "two/z"]), observations),
    draw=st.floats(0, 1, exclude_max=True),
    off=st.sampled_from([{}, {"two/a": "not pulled"}]),
)
def test_what_is_stored_leads_to_the_same_plan(
    catalogue: Catalogue,
    names: tuple[str, ...],
    ask: Ask,
    seen: dict[str, Observation],
    draw: float,
    off: dict[str, str],
):
    trace = trace_of(table_of(catalogue, *names, off=off), ask, seen, draw)
    record, table = stored(trace)
    assert differences(record, table) == ()
    assert same_plan(replay(record, table), trace.plan)
    assert decode(encode(record)) == record
    assert whole(record, table).decision.excluded == trace.plan.excluded
    assert record == record_of(trace, record.table)
    assert table_text(record, table)


def test_another_decision_is_noticed_and_named(catalogue: Catalogue):
    record, table = stored(trace_of(table_of(catalogue, "cheap"), Ask(prompt_tokens=100), {}))
    other = msgspec.structs.replace(record, ask=Ask(prompt_tokens=20_000))
    (candidates, excluded) = differences(other, table)
    assert candidates.startswith("candidates: it was ")
    assert "one/b" in excluded
    assert differences(msgspec.structs.replace(record, draw=0.9), table) == ()


REPLAYING = """
    import sys
    from pathlib import Path
    from gateway.explain.record import decode
    from gateway.explain.replay import differences
    from gateway.explain.static import read_static
    from gateway.state.reader import Reader

    with Reader(Path(sys.argv[1])) as reader:
        for name in sys.argv[2:]:
            record = decode(reader.find_record(name))
            print(differences(record, read_static(reader.find_static(record.table))))
"""


def test_another_process_replays_from_the_store_alone_after_the_configuration_is_gone(
    catalogue: Catalogue, tmp_path: Path
):
    chance = random.Random(4)
    packer = Packer()
    store = Store.open(tmp_path / FILE_NAME, packer, at_once=packer)
    names = [f"gen-{number:026d}" for number in range(20)]
    tables = [table_of(catalogue, name) for name in ("m", "cheap", "fixed")]
    for number, name in enumerate(names):
        seen = {"one/a": Observation(ttft_s=chance.random(), standing=chance.choice(STANDINGS), until_s=NOW_S + 1)}
        ask = Ask(prompt_tokens=chance.randrange(20_000))
        assert store.put(trace_of(tables[number % 3], ask, seen, chance.random(), id=name))
        if number == 9:
            assert store.flush(30)  # those that follow say no more what they refer to
    assert store.close()
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(REPLAYING), str(tmp_path / FILE_NAME), *names],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == ["()"] * len(names)


def test_no_key_no_url_and_no_words_for_people_are_stored(catalogue: Catalogue):
    packed = Packer()(trace_of(table_of(catalogue, "m"), Ask(), {}))
    assert packed.static is not None
    for data in (packed.data, packed.static.data):
        assert KEY.encode() not in data
        assert b"http" not in data


def test_the_digest_is_that_of_the_content_whatever_process_made_it(catalogue: Catalogue):
    one, same = make_static(table_of(catalogue, "m")), make_static(table_of(catalogue, "m"))
    other = make_static(table_of(catalogue, "m", off={"one/a": "off"}))
    assert one == same
    assert one.digest != other.digest
    code = "import sys; from gateway.explain.static import *; "
    code += "print(make_static(read_static(sys.stdin.buffer.read())).digest)"
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            input=one.data,
            capture_output=True,
            env={"PYTHONHASHSEED": seed},
            check=True,
            timeout=60,
        )
        assert done.stdout.decode().strip() == one.digest


def test_tables_are_spelled_out_once_and_not_for_ever(catalogue: Catalogue):
    statics = Statics()
    table = table_of(catalogue, "m")
    assert statics.of(table) is statics.of(table)
    for _ in range(TABLES_MAX + 1):
        statics.of(table_of(catalogue, "one/a"))
    assert len(statics._known) <= TABLES_MAX


def test_what_came_of_it_is_recorded_and_told(catalogue: Catalogue):
    table = table_of(catalogue, "fixed")
    seen = {
        "two/a": Observation(standing="open", until_s=NOW_S + 4, ttft_s=0.5),
        "one/a": Observation(ttft_s=0.25, in_flight=2),
    }
    endpoints = {row.id: row.endpoint for row in table.merged.rows}
    attempts = [
        Attempt(
            1,
            endpoints["one/a"],
            NOW_S + 0.001,
            outcome="failed",
            code="answer_truncated",
            upstream_status=200,
            duration_s=0.5,
            ttft_s=0.1,
            usage=Usage(input_tokens=20_000, output_tokens=7),
            usage_estimated=True,
        ),
        Attempt(
            2,
            endpoints["one/c"],
            NOW_S + 0.502,
            why="rescue",
            outcome="ok",
            upstream_status=200,
            duration_s=0.7,
            ttft_s=0.2,
            usage=Usage(input_tokens=20_007, output_tokens=55, cost_in_nusd=12_345),
            adapted=(Adaptation("seed", "dropped"),),
            emulated=("tools",),
        ),
    ]
    ask = Ask(prompt_tokens=20_000, output_tokens=100, needed=("tools",))
    trace = trace_of(
        table, ask, seen, attempts=attempts, rescued=Rescued("prefill", "one/a", "one/c", 31), requested=("fixed",)
    )
    record, read = stored(trace)
    assert [one.started_ms for one in record.attempts] == [1, 502]
    assert record.attempts[1].reported_cost_in_nusd == 12_345
    assert record.attempts[0].tokens is not None
    assert record.attempts[0].tokens.estimated
    assert record.duration_ms == 1234
    text = table_text(record, read)
    for words in (
        "gen-01M80N33M1W9MH97QD81PN993C: 2026-11-22 10:30:15 UTC, chat.completions, caller me",
        "asked for fixed; route fixed; 20,000 prompt tokens; at most 100 back; 100 expected; needs tools",
        "answered by one/c, after one/a broke off at 31 characters (2 attempts, 1.234 s)",
        "Candidates, by policy ordered",
        "back in 4.0 s",
        "failed: answer_truncated",
        "go on with the answer",
        "about 20,000 in, 7 out",
        "20,007 in, 55 out",
        "0.000012345",
        "tools emulated, seed dropped",
        "100,000",
    ):
        assert words in text
    assert "context" in table_text(record)


@pytest.mark.parametrize(
    ("outcome", "code", "words"),
    [
        ("failed", "rate_limited", "failed with rate_limited (0 attempts, 1.234 s)"),
        ("failed", None, "failed with an error"),
        ("cancelled", "cancelled", "the client left while nobody was asked"),
    ],
)
def test_an_outcome_is_one_sentence(catalogue: Catalogue, outcome: str, code: str | None, words: str):
    trace = trace_of(table_of(catalogue, "cheap"), Ask(), {}, outcome=outcome, code=code)
    assert words in outcome_of(record_of(trace, "d"))


def test_what_is_seen_of_an_endpoint_is_spelled_anew_when_it_changes(catalogue: Catalogue):
    table, packer = table_of(catalogue, "cheap"), Packer()
    for ttft_s in (0.1, 0.2, 0.2):
        seen = {"one/a": Observation(ttft_s=ttft_s), "one/b": UNOBSERVED, "stranger": Observation(ttft_s=9)}
        record = decode(packer(trace_of(table, Ask(), seen)).data)
        assert record.observations == {"one/a": Observation(ttft_s=ttft_s)}


@pytest.mark.parametrize("tokens", [10, 0xC1, 0x0AC10001, 2**63, 2**70])
def test_any_number_is_stored_without_line_breaks(catalogue: Catalogue, tokens: int):
    ask = Ask(prompt_tokens=10, budget_in_nusd=tokens)
    packed = Packer()(
        trace_of(table_of(catalogue, "cheap"), ask, {}, now_s=struct.unpack(">d", b"@\xc1\n\xc1\x00\n\x01\xc1")[0])
    )
    assert b"\n" not in packed.data
    record = decode(packed.data)
    assert record.ask == ask
    assert struct.pack(">d", record.now_s) == b"@\xc1\n\xc1\x00\n\x01\xc1"


def test_a_score_that_is_no_number_is_stored_as_none(catalogue: Catalogue):
    trace = trace_of(table_of(catalogue, "cheap"), Ask(), {})
    plan = trace.plan
    first = Candidate(plan.candidates[0].endpoint, UNOBSERVED, score=float("inf"))
    decision = decision_of(Plan(plan.route, plan.policy, (first,)), trace.table)
    assert decision.candidates[0].score is None


@pytest.mark.parametrize("data", [b"", b"{}", b"[1]", b'{"id":1}'])
def test_what_is_no_record_is_said_to_be_none(data: bytes):
    with pytest.raises(UnreadableRecordError, match="another version"):
        decode(data)
    with pytest.raises(UnreadableRecordError, match="another version"):
        read_static(data)


def test_the_explanation_on_the_wire_has_costs_as_decimal_text(catalogue: Catalogue):
    trace = trace_of(table_of(catalogue, "m"), Ask(prompt_tokens=20_000), {"one/a": Observation(ttft_s=0.5)})
    body = json.loads(msgspec.json.encode(explanation_of(("m",), trace.ask, trace.plan, NOW_S)))
    by_id = {one["endpoint"]: one for one in body["candidates"]}
    assert body["would_ask"] == [one.endpoint.id for one in trace.plan.candidates]
    assert by_id["one/a"]["expected_cost"] == "0.0136"
    assert by_id["one/c"]["expected_cost"] is None
    assert by_id["one/a"]["context_tokens"] == 100_000
    assert {one["code"] for one in body["excluded"]} >= {"retired", "context"}


@given(st.integers(-(10**30), 10**30))
def test_money_in_text_is_exact(amount_in_pusd: int):
    from decimal import Context, Decimal  # noqa: PLC0415 # only here

    text = usd_from_pico(amount_in_pusd)
    assert Context(prec=80).multiply(Decimal(text), Decimal(10**12)) == amount_in_pusd
    assert "e" not in text.lower()


def test_a_record_that_is_packed_at_once_is_the_same_and_relies_on_a_table_that_was_told_not_long_ago(
    catalogue: Catalogue,
):
    table, packer = table_of(catalogue, "cheap"), Packer()
    trace = trace_of(table, Ask(), {}, unix_s=1000.0)
    assert packer.at_once(trace) is None
    whole = packer(trace)
    assert packer.at_once(trace) == Packed(whole.id, whole.data)
    assert packer.at_once(trace_of(table, Ask(), {}, unix_s=1000.0 + STATIC_TOLD_S - 1)) is not None
    # Then it has to be kept alive, or the clock was set.
    assert packer.at_once(trace_of(table, Ask(), {}, unix_s=1000.0 + STATIC_TOLD_S)) is None
    assert packer.at_once(trace_of(table, Ask(), {}, unix_s=999.0)) is None
    assert packer.at_once(trace_of(table_of(catalogue, "one/a"), Ask(), {}, unix_s=1000.0)) is None
    packer.forget()
    assert packer.at_once(trace) is None
