"""Alerts: what is worth one, that it is told once, and how it is brought to a real receiver."""

import asyncio
import json
from contextlib import suppress

import pytest
import tenacity
from click.testing import CliRunner
from msgspec.structs import replace

from gateway.alerts.alerts import Alerts
from gateway.alerts.courier import QUEUE_MAX, TRIES_MAX, Courier, PassingError, RefusedError, letter_of
from gateway.alerts.look import DOWN_FOR_S, Lookout, family
from gateway.alerts.memory import TOLD_MAX, Memory
from gateway.alerts.notice import BudgetUse, DearAnswer, Facts, HourSpend, Notice, Outage, notices_of
from gateway.alerts.signing import SIGNATURE_HEADER, TIMESTAMP_HEADER, sign, verify
from gateway.cli import main
from gateway.config.alerts import EVENTS, AlertTarget
from gateway.config.catalogue import GatewaySettings
from gateway.config.load import load
from gateway.config.secrets import Secret
from gateway.errors import ConfigError
from gateway.keys.key import KeyLimits, KeyRecord
from gateway.keys.storage import row_of
from gateway.state.connection import open_writer
from gateway.state.key_rows import write_key
from gateway.state.writer import EndpointEvent
from providers.http_transport import HttpTransport
from tests.fakes.catalogues import catalogue, endpoint, route
from tests.fakes.scripted_day import DAY_S, START_S, Day
from tests.fakes.webhook import webhook

SECRET = "0123456789abcdef0123456789abcdef"
NOW_S = START_S + 10 * DAY_S + 1800.0
A, B = endpoint("a/m", 1.0), endpoint("b/m", 10.0)
ROUTES = [route([A, B], policy="ordered")]
NOTICE = Notice("endpoint_down", "x", "x is open", {"endpoint": "x"})


def target(url="https://alerts.example.com/h", **facts):
    return AlertTarget(Secret(url), Secret(SECRET), **facts)


def told(facts, **more):
    return [(one.event, one.subject) for one in notices_of(facts, target(**more))]


@pytest.fixture
def day(tmp_path):
    made = Day(tmp_path, catalogue([A, B], ROUTES))
    yield made
    made.close()


@pytest.fixture
async def transport():
    made = HttpTransport()
    yield made
    await made.aclose()


# ---- the rules


@pytest.mark.parametrize(("spent", "percent"), [(49, None), (50, 50), (79, 50), (80, 80), (100, 100), (250, 100)])
def test_a_budget_is_told_at_the_highest_share_that_it_reached(spent, percent):
    facts = Facts(budgets=[BudgetUse("k", "team", "month", 0, spent, 100)])
    assert told(facts) == ([] if percent is None else [("budget", f"k/month/0/{percent}")])
    assert told(facts, budget_percent=(10,)) == [("budget", "k/month/0/10")]
    assert told(facts, events=("unusual_spend",)) == []


def test_outages_are_told_and_so_is_their_end():
    facts = Facts(outages=[Outage("a/m", 100.0, "open", "connect"), Outage("b/m", 100.0, "open", "connect", 160.4)])
    assert told(facts) == [("endpoint_down", "a/m/100.000"), ("endpoint_back", "b/m/100.000")]
    assert told(facts, events=("endpoint_back",)) == [("endpoint_back", "b/m/100.000")]
    assert [one.data.get("down_s") for one in notices_of(facts, target())] == [None, 60]


def test_a_fallback_is_dear_from_so_many_times_the_first_choice():
    def facts(cost, first):
        return Facts(dear=[DearAnswer("gen-1", "m", "b/m", "a/m", 7200.5, cost, first)])

    assert told(facts(300, 100)) == [("dear_fallback", "m/b/m/7200")]
    assert told(facts(299, 100)) == []
    assert told(facts(299, 100), dearer_times=2.0) == [("dear_fallback", "m/b/m/7200")]
    assert told(facts(300, 0)) == []


@pytest.mark.parametrize(
    ("spent_usd", "before_usd", "unusual"),
    [
        (7, (2, 2, 2, 9), True),
        (6, (2, 2, 2, 9), False),
        (7, (2, 2), False),
        (2, (0, 0, 0), True),
        (1, (0, 0, 0), False),
    ],
)
def test_spending_is_unusual_above_times_the_median_and_a_least(spent_usd, before_usd, unusual):
    facts = Facts(hour=HourSpend(3600, spent_usd * 10**9, tuple(one * 10**9 for one in before_usd)))
    assert told(facts) == ([("unusual_spend", "3600")] if unusual else [])


# ---- what the store says


def test_a_breaker_that_closes_soon_is_no_outage_and_one_that_does_not_is(day, tmp_path):
    watch = Lookout(day.path, NOW_S - 100)
    day.events(
        EndpointEvent(NOW_S + 1, "a/m", "open", "3 failures"), EndpointEvent(NOW_S + 1, "b/m", "open", "connect")
    )
    assert watch.look(day.catalogue, NOW_S + 5).outages == []
    day.events(EndpointEvent(NOW_S + 6, "a/m", "probing", "due"), EndpointEvent(NOW_S + 7, "a/m", "healthy", "closed"))
    (down,) = watch.look(day.catalogue, NOW_S + 1 + DOWN_FOR_S).outages
    assert (down.endpoint, down.since_unix_s, down.cause) == ("b/m", NOW_S + 1, "connect")
    assert watch.look(day.catalogue, NOW_S + 60).outages == []
    day.events(
        EndpointEvent(NOW_S + 70, "b/m", "healthy", "closed"), EndpointEvent(NOW_S + 71, "a/m", "disabled", "401")
    )
    back, disabled = watch.look(day.catalogue, NOW_S + 75).outages
    assert (back.endpoint, back.back_unix_s) == ("b/m", NOW_S + 70)
    assert (disabled.endpoint, disabled.standing) == ("a/m", "disabled")


def test_the_budget_of_a_team_counts_what_its_keys_spent(day, tmp_path):
    for name, parent, limits in (
        ("team", None, KeyLimits(month_in_nusd=1_000_000, day_in_nusd=0)),
        ("child", "team", KeyLimits()),
        ("other", None, KeyLimits(day_in_nusd=1_000_000)),
    ):
        record = KeyRecord(id=name, name=name, digest=b"x", created_us=1, updated_us=1, parent=parent, limits=limits)
        connection = open_writer(day.path)
        with connection:
            write_key(connection, row_of(record))
        connection.close()
    day.ask(NOW_S - 60, [("a/m", {})], key_id="child")
    day.ask(NOW_S - 50, [("a/m", {})], key_id="other")
    found = Lookout(day.path, NOW_S - 100).look(day.catalogue, NOW_S).budgets
    assert [(one.key_id, one.window, one.spent_in_nusd) for one in found] == [
        ("other", "day", 150_000),
        ("team", "month", 150_000),
    ]


def test_a_family_is_all_that_is_below_and_ends():
    def key(name, parent):
        return KeyRecord(id=name, name=name, digest=b"", created_us=0, updated_us=0, parent=parent)

    records = [key("a", "c"), key("b", "a"), key("c", "b"), key("d", None)]
    assert family(records[0], records) == {"a", "b", "c"}
    assert family(records[3], records) == {"d"}


def test_an_answer_elsewhere_is_held_against_whom_would_have_been_asked_had_all_been_well(day, tmp_path):
    watch = Lookout(day.path, NOW_S - 100)
    day.ask(NOW_S + 1, [("a/m", {})])
    name = day.ask(NOW_S + 2, [("a/m", {"outcome": "failed", "code": "provider_error"}), ("b/m", {})])
    (dear,) = watch.look(day.catalogue, NOW_S + 5).dear
    assert (dear.generation_id, dear.endpoint, dear.first_choice) == (name, "b/m", "a/m")
    assert (dear.cost_in_nusd, dear.first_in_nusd) == (1_500_000, 150_000)
    assert watch.look(day.catalogue, NOW_S + 10).dear == []


def test_the_same_hour_of_the_days_before_is_what_is_usual(day, tmp_path):
    for back in (0, 1, 3):
        day.ask(NOW_S - back * DAY_S, [("a/m", {})])
    day.ask(NOW_S - DAY_S - 7200, [("a/m", {})])
    hour = Lookout(day.path, NOW_S - 100).look(day.catalogue, NOW_S).hour
    assert (hour.spent_in_nusd, hour.before_in_nusd) == (150_000, (150_000, 0, 150_000))


# ---- once


def test_what_was_told_is_known_after_a_restart_within_bounds(tmp_path):
    memory = Memory(tmp_path / "alerts.json")
    assert memory.is_new("x", NOW_S)
    assert not memory.is_new("x", NOW_S)
    for number in range(TOLD_MAX + 5):
        memory.is_new(str(number), NOW_S + number)
    memory.save(NOW_S)
    again = Memory(tmp_path / "alerts.json")
    assert len(again.kept.told) == TOLD_MAX
    assert not again.is_new(str(TOLD_MAX + 4), NOW_S)
    assert (tmp_path / "alerts.json").stat().st_mode & 0o777 == 0o600


def test_a_memory_that_cannot_be_read_is_none(tmp_path):
    (tmp_path / "alerts.json").write_text("{broken")
    assert Memory(tmp_path / "alerts.json").is_new("x", NOW_S)


# ---- on its way


async def test_an_alert_is_signed_over_its_time_and_its_body(transport):
    async with webhook() as hook:
        letter = letter_of(NOTICE, NOW_S)
        await Courier(target(hook.url), transport, lambda: NOW_S).deliver(letter)
        (one,) = hook.told
    signature, timestamp = one.headers[SIGNATURE_HEADER], one.headers[TIMESTAMP_HEADER]
    assert verify(SECRET, timestamp, signature, one.body, now_unix_s=NOW_S + 10)
    assert not verify(SECRET, timestamp, signature, one.body + b" ", now_unix_s=NOW_S)
    assert not verify(SECRET, timestamp, signature, one.body, now_unix_s=NOW_S + 301)
    assert not verify(SECRET + "x", timestamp, signature, one.body, now_unix_s=NOW_S)
    assert not verify(SECRET, "٣", signature, one.body, now_unix_s=NOW_S)
    assert signature == sign(SECRET, int(NOW_S), one.body)
    body = json.loads(one.body)
    assert (body["event"], body["message"], body["data"]) == ("endpoint_down", "x is open", {"endpoint": "x"})
    assert body["id"] == one.headers["x-mixgate-alert-id"] == letter.id


async def test_what_may_pass_is_tried_again_with_the_same_id(transport):
    async with webhook(b"503 Busy", b"429 Slow down") as hook:
        courier = Courier(target(hook.url), transport, lambda: NOW_S, wait=tenacity.wait_none())
        await courier.deliver(letter_of(NOTICE, NOW_S))
        assert len({one.headers["x-mixgate-alert-id"] for one in hook.told}) == 1
        assert len(hook.told) == 3


@pytest.mark.parametrize("status", [b"302 Found", b"400 Bad", b"404 Gone"])
async def test_refusals_and_redirects_are_not_tried_again_nor_followed(transport, status):
    async with webhook(status) as hook:
        courier = Courier(target(hook.url), transport, lambda: NOW_S, wait=tenacity.wait_none())
        with pytest.raises(RefusedError):
            await courier.deliver(letter_of(NOTICE, NOW_S))
        assert len(hook.told) == 1


async def test_it_is_given_up_after_so_many_tries_and_counted(transport):
    async with webhook(*[b"500 No"] * TRIES_MAX) as hook:
        courier = Courier(target(hook.url), transport, lambda: NOW_S, wait=tenacity.wait_none())
        with pytest.raises(PassingError, match="HTTP 500"):
            await courier.deliver(letter_of(NOTICE, NOW_S))
        assert len(hook.told) == TRIES_MAX


async def test_the_queue_is_bounded_and_drops_the_oldest(transport):
    async with webhook() as hook:
        courier = Courier(target(hook.url), transport, lambda: NOW_S)
        for number in range(QUEUE_MAX + 3):
            courier.put(Notice("test", str(number), str(number), {}))
        task = asyncio.create_task(courier.run())
        await hook.wait_for(QUEUE_MAX)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    assert courier.failed == 3
    assert json.loads(hook.told[0].body)["message"] == "3"


async def test_everybody_is_told_once_of_what_they_want(day, tmp_path, transport):
    async with webhook() as all_of_it, webhook() as outages:
        targets = (target(all_of_it.url), target(outages.url, events=("endpoint_down",)))
        gateway = GatewaySettings(alerts=targets)
        now = replace(day.catalogue, gateway=gateway)
        clock = [NOW_S]
        alerts = Alerts(tmp_path, lambda: now, transport, unix_time_s=lambda: clock[0], every_s=0.01)
        day.events(EndpointEvent(NOW_S + 1, "a/m", "disabled", "our key is refused"))
        day.ask(NOW_S + 1, [("a/m", {"outcome": "failed", "code": "auth"}), ("b/m", {})])
        clock[0] = NOW_S + 2
        task = asyncio.create_task(alerts.run())
        await all_of_it.wait_for(2)
        await outages.wait_for(1)
        clock[0] = NOW_S + 10
        day.events(EndpointEvent(NOW_S + 9, "a/m", "healthy", "closed"))
        await all_of_it.wait_for(3)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    events = [json.loads(one.body)["event"] for one in all_of_it.told]
    assert sorted(events) == ["dear_fallback", "endpoint_back", "endpoint_down"]
    assert [json.loads(one.body)["event"] for one in outages.told] == ["endpoint_down"]


# ---- the configuration and the command


CONFIG = """\
gateway:
  alerts:
    - {{url: "{url}", secret: env:HOOK_SECRET{more}}}
providers:
  a:
    dialect: openai
    base_url: http://127.0.0.1:9/v1
    models: {{m: {{}}}}
"""


def written(folder, url="https://alerts.example.com/x", more=""):
    path = folder / "providers.yaml"
    path.write_text(CONFIG.format(url=url, more=more))
    return path


def test_a_target_has_sane_defaults_and_never_shows_its_secrets(tmp_path):
    (one,) = load(written(tmp_path), {"HOOK_SECRET": SECRET}).gateway.alerts
    assert (one.host, one.events, one.budget_percent) == ("alerts.example.com", EVENTS, (50, 80, 100))
    assert one.unusual_least_in_nusd == 10**9
    assert SECRET not in repr(one)
    assert "example.com/x" not in repr(one)
    (one,) = load(
        written(tmp_path, "env:HOOK"), {"HOOK_SECRET": SECRET, "HOOK": "https://h.example/T0/B0"}
    ).gateway.alerts
    assert one.host == "h.example"


@pytest.mark.parametrize(
    ("url", "secret", "more", "words"),
    [
        ("http://alerts.example.com/x", SECRET, "", "over plain http"),
        ("https://user:password@alerts.example.com/x", SECRET, "", "key or password"),
        ("ftp://alerts.example.com", SECRET, "", "http"),
        ("https://alerts.example.com/x", "", "", "does not resolve"),
        ("https://alerts.example.com/x", "short", "", "fewer than 16"),
        ("https://alerts.example.com/x", SECRET, ", events: [weather]", "weather"),
        ("https://alerts.example.com/x", SECRET, ", events: []", "events"),
        ("https://alerts.example.com/x", SECRET, ", dearer_times: 1", "times"),
        ("https://alerts.example.com/x", SECRET, ", budget_percent: [0]", "budget_percent"),
    ],
)
def test_what_is_no_target_is_refused_at_the_start(tmp_path, url, secret, more, words):
    with pytest.raises(ConfigError) as caught:
        load(written(tmp_path, url, more), {"HOOK_SECRET": secret})
    said = " ".join(f"{one.where} {one.message} {one.fix}" for one in caught.value.problems)
    assert words in said
    assert "password@" not in said


async def test_the_command_sends_one_and_says_who_did_not_take_it(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path))
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    async with webhook(b"200 Fine", b"500 No") as hook:
        words = ["alerts", "test", "--config", str(written(tmp_path, hook.url))]
        done = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert (done.exit_code, done.output) == (0, "127.0.0.1: told\n")
        done = await asyncio.to_thread(CliRunner().invoke, main, words)
        assert (done.exit_code, done.output) == (1, "127.0.0.1: HTTP 500\n")
        assert [json.loads(one.body)["event"] for one in hook.told] == ["test", "test"]
    done = await asyncio.to_thread(CliRunner().invoke, main, ["alerts", "list", *words[2:]])
    assert "127.0.0.1" in done.output


def test_nobody_to_tell_is_said(tmp_path, monkeypatch):
    monkeypatch.setenv("MIXGATE_HOME", str(tmp_path))
    path = tmp_path / "providers.yaml"
    path.write_text("providers: {}\n")
    done = CliRunner().invoke(main, ["alerts", "test", "--config", str(path)])
    assert done.exit_code == 1
    assert "names nobody to tell" in done.output
