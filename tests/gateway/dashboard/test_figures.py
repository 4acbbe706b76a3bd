"""The dashboard's figures over generated rows: the same as JSON, as CSV, by `mixgate spend`, and by plain SQL."""

import asyncio
import csv
import io
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest
from click.testing import CliRunner

from bench.generated_ledger import DAY_S, DAYS, fill, read_all
from gateway.cli import main
from gateway.dashboard.gate import FIELDS, HOST, LOOPBACK
from gateway.dashboard.site import Dashboard, Sources
from gateway.fleet import Fleet
from gateway.health import Health
from gateway.sharing.tries import OwnTries
from gateway.state.connection import FILE_NAME
from gateway.state.request_rows import COST_BOUNDS_IN_NUSD
from tests.dashboard_browser.kit import CHROMIUM, NOWHERE_ELSE, Visits, settle, wait_for_url
from tests.fakes.listener import FULL

ROWS = 10_000_000 if FULL else 1_000_000
NOW_S = 20_406 * DAY_S - 1
"""The last second of 13 November 2025."""
SINCE_S = NOW_S // DAY_S * DAY_S - (DAYS - 1) * DAY_S
ALL = {"since": str(SINCE_S), "until": str(NOW_S)}
SPENT_SQL = (
    "sum(attempt_id LIKE '%/1'), count(*), sum(outcome <> 'ok'), sum(usage_source <> 'provider'), "
    "total(input_tokens), total(output_tokens), coalesce(sum(cost_in_nusd), 0), sum(cost_in_nusd IS NULL)"
)
SPENT = ("requests", "attempts", "failed", "estimated", "input_tokens", "output_tokens", "cost_usd", "unknown_cost")
BY = {"model": "model", "provider": "provider", "endpoint": "endpoint", "key": "key_id", "app": "app", "route": "route"}
SLOW_MACHINE = 10
"""How much slower than wanted a busy machine may be: this is no measurement, `python -m bench --dashboard` is one."""


class _Open:
    """A gateway on whose machine everybody may look."""

    def check_host(self, scope):
        return scope[HOST]

    def is_open_to(self, _scope):
        return True

    def tokens_for(self, _scope):
        return ()

    def digest(self, token):
        return sha256(token.encode()).digest()


class _Nobody:
    """No key has spent anything."""

    async def usage(self, _key_ids, _unix_s):
        raise AssertionError("no key has a budget")


async def _nothing():
    """Nothing is on its way."""
    return 0, ()


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ledger")
    fill(folder / FILE_NAME, ROWS, since_unix_s=SINCE_S)
    yield folder
    (folder / FILE_NAME).unlink()  # it is large


@pytest.fixture
async def ask(home):
    """Asks the dashboard for something: what it says as JSON, or as text where that is no JSON."""
    dashboard = Dashboard(
        Sources(
            path=home / FILE_NAME,
            door=_Open,
            fleet=lambda: Fleet(SimpleNamespace(endpoints={}), {}, {}),
            health=Health(lambda: 0.5),
            live=_nothing,
            key_records=list,
            spending=_Nobody(),
            unix_s=lambda: float(NOW_S),
            monotonic_s=time.monotonic,
            tries=OwnTries(),
        )
    )

    async def app(scope, receive, send):
        scope |= {HOST: "localhost", LOOPBACK: True, FIELDS: dict(scope["headers"])}
        await dashboard(scope, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost", timeout=60) as client:

        async def get(path, status=200, **query):
            response = await client.get(f"/dashboard/api/{path}", params=query)
            assert response.status_code == status, response.text
            return response.json() if response.headers["content-type"] == "application/json" else response.text

        yield get
    await dashboard.aclose()


def nusd(text):
    amount = Decimal(text) * 10**9
    assert amount == int(amount)
    return int(amount)


def figures(row):
    return tuple(nusd(row[name]) if name == "cost_usd" else int(row[name]) for name in SPENT)


def by_sql(home, column, where="true"):
    with read_all(home / FILE_NAME) as connection:
        statement = f"SELECT {column}, {SPENT_SQL} FROM entry WHERE {where} GROUP BY 1"  # noqa: S608
        return {row[0]: tuple(map(int, row[1:])) for row in connection.execute(statement)}


def within(since_s, until_s):
    return f"unix_us >= {since_s * 10**6} AND unix_us < {until_s * 10**6}"


@pytest.mark.parametrize("by", BY)
async def test_sums_are_the_same_everywhere(ask, home, by, monkeypatch):
    expected = by_sql(home, BY[by])
    table = await ask("spend", by=by, **ALL)
    assert {row["name"]: figures(row) for row in table["data"]} == expected
    costs = [nusd(row["cost_usd"]) for row in table["data"]]
    assert costs == sorted(costs, reverse=True)
    lines = csv.DictReader(io.StringIO(await ask("spend", by=by, format="csv", **ALL)))
    assert {line["name"]: figures(line) for line in lines} == expected
    monkeypatch.setenv("MIXGATE_HOME", str(home))
    since, until = (datetime.fromtimestamp(at, UTC).isoformat() for at in (SINCE_S, NOW_S))
    said = CliRunner().invoke(main, ["spend", "--by", by, "--since", since, "--until", until, "--json"])
    assert said.exit_code == 0, said.output
    assert {line[by]: figures(line) for line in json.loads(said.stdout)} == expected
    assert figures(table["total"]) == tuple(map(sum, zip(*expected.values(), strict=True)))


async def test_tags_count_under_each_of_them(ask, home):
    table = await ask("spend", by="tag", **ALL)
    found = {row["name"]: figures(row) for row in table["data"]}
    red = by_sql(home, "1", "tags LIKE '%red%'")[1]
    assert found == {
        "red": red,
        "blue": by_sql(home, "1", "tags LIKE '%blue%'")[1],
        "": by_sql(home, "1", "tags = ''")[1],
    }
    assert table["total"] is None


async def test_a_window_counts_from_hour_to_hour(ask, home):
    since, until = SINCE_S + 3 * DAY_S + 5 * 3600, SINCE_S + 6 * DAY_S + 7 * 3600
    table = await ask("spend", by="all", since=str(since + 59), until=str(until - 59))
    assert [figures(row) for row in table["data"]] == [*by_sql(home, "1", within(since, until)).values()]


@pytest.mark.parametrize("step", ["hour", "day"])
async def test_steps_add_up_to_the_sums_with_the_rest_in_one_line(ask, home, step):
    width = 3600 if step == "hour" else DAY_S
    since, until = SINCE_S + 10 * DAY_S, SINCE_S + 14 * DAY_S
    table = await ask("spend/series", by="model", step=step, since=str(since), until=str(until), top=3)
    named = [one["name"] for one in table["names"] if not one["others"]]
    assert (len(named), len(table["names"])) == (3, 4)
    expected = by_sql(home, f"(unix_us / {width * 10**6}) || ' ' || model", within(since, until))
    rest, found = {}, {}
    for name, line in expected.items():
        at, _, model = name.partition(" ")
        if model in named:
            found[int(at), model] = line
        else:
            rest[int(at)] = tuple(map(sum, zip(rest.get(int(at), (0,) * len(line)), line, strict=True)))
    said = {}
    for row in table["data"]:
        at = int(datetime.fromisoformat(row["time"]).timestamp()) // width
        said[at, None if row["others"] else row["name"]] = figures(row)
    assert said == found | {(at, None): line for at, line in rest.items()}


async def test_one_name_has_a_series_of_its_own(ask, home):
    table = await ask("spend/series", by="key", step="day", name="key7", **ALL)
    expected = by_sql(
        home, f"unix_us / {DAY_S * 10**6}", "key_id = 'key7' AND " + within(SINCE_S, NOW_S // DAY_S * DAY_S + DAY_S)
    )
    assert [figures(row) for row in table["data"]] == [expected[at] for at in sorted(expected)]
    assert [one["name"] for one in table["names"]] == ["key7"]


async def test_requests_are_counted_by_what_all_their_attempts_cost(ask, home):
    table = await ask("cost-distribution", **ALL)
    with read_all(home / FILE_NAME) as connection:
        connection.execute(
            "CREATE TEMP TABLE one AS SELECT coalesce(sum(cost_in_nusd), 0) AS cost, "
            "sum(cost_in_nusd IS NULL) AS unknown FROM entry GROUP BY substr(attempt_id, 1, instr(attempt_id, '/'))"
        )
        counts = "SELECT coalesce(sum(unknown = 0), 0), coalesce(sum(unknown > 0), 0) FROM temp.one"
        assert (table["requests"], table["unknown"]) == connection.execute(counts).fetchone()
        for row in table["data"]:
            begin = nusd(row["from_usd"])
            end = None if row["to_usd"] is None else nusd(row["to_usd"])
            assert end in {None, 0, *COST_BOUNDS_IN_NUSD}
            inside = (
                "cost = 0" if end == 0 else f"cost >= {max(begin, 1)}" + ("" if end is None else f" AND cost < {end}")
            )
            found = connection.execute(f"SELECT count(*), sum(cost) FROM temp.one WHERE unknown = 0 AND {inside}")  # noqa: S608
            assert (row["requests"], nusd(row["cost_usd"])) == found.fetchone()
    assert sum(row["requests"] for row in table["data"]) == table["requests"]


async def test_what_others_saved_is_what_the_rows_say(ask, home):
    saved = await ask("savings", **ALL)
    kinds = {
        "rescues": ("kept_usd", "one.ttft_ms IS NOT NULL"),
        "failovers": ("wasted_usd", "one.ttft_ms IS NULL AND one.endpoint <> two.endpoint"),
        "retries": ("wasted_usd", "one.ttft_ms IS NULL AND one.endpoint = two.endpoint"),
    }
    with read_all(home / FILE_NAME) as connection:
        for kind, (money, condition) in kinds.items():
            found = connection.execute(
                "SELECT count(*), sum(one.cost_in_nusd) FROM entry AS one JOIN entry AS two ON two.attempt_id = "  # noqa: S608
                "substr(one.attempt_id, 1, 30) || '/2' WHERE one.attempt_id LIKE '%/1' AND one.outcome = 'failed' "
                f"AND two.outcome = 'ok' AND {condition}"
            ).fetchone()
            assert (saved[kind]["requests"], nusd(saved[kind][money])) == found
            assert found[0] > 0


async def test_the_overview_adds_up_today_and_the_month(ask, home):
    shown = await ask("overview")
    month = int(datetime.fromtimestamp(NOW_S, UTC).replace(day=1, hour=0, minute=0, second=0).timestamp())
    today = NOW_S // DAY_S * DAY_S
    hour = NOW_S // 3600 * 3600 + 3600  # sums know hours, and this one is not over
    for name, since in (("today", today), ("month", month)):
        _, attempts, failed, _, _, _, cost, unknown = by_sql(home, "1", within(since, hour))[1]
        told = shown[name]
        assert (told["attempts"], told["failed"], told["unknown_cost"]) == (attempts, failed, unknown)
        assert nusd(told["cost_usd"]) == cost
    week = by_sql(home, "1", within(today - 7 * DAY_S, today))[1][6]
    end = int(datetime.fromtimestamp(NOW_S, UTC).replace(month=12, day=1, hour=0, minute=0, second=0).timestamp())
    assert nusd(shown["forecast"]["cost_usd"]) == nusd(shown["month"]["cost_usd"]) + week * (end - NOW_S) // (7 * DAY_S)
    assert shown["forecast"]["from_days"] == 7


async def pages(ask, count, **query):
    """Every row of a look-up."""
    rows, before = [], None
    while True:
        more = {} if before is None else {"before": before}
        page = await ask("requests", count=count, **query, **more)
        rows += page["data"]
        before = page["next"]
        if before is None:
            return rows


@pytest.mark.parametrize(
    ("query", "where"),
    [
        ({"model": "vendor/model-3", "outcome": "failed"}, "model = 'vendor/model-3' AND outcome = 'failed'"),
        (
            {"key": "key5", "tag": "blue", "min_cost": "0.05"},
            "key_id = 'key5' AND tags LIKE '%blue%' AND cost_in_nusd >= 50000000",
        ),
        ({"user": "user17", "app": "app 3"}, "user = 'user17' AND app = 'app 3'"),
    ],
)
async def test_a_look_up_by_filters_finds_every_row_newest_first(ask, home, query, where):
    times = {"since": str(NOW_S - 3 * DAY_S), "until": str(NOW_S - DAY_S)}
    rows = await pages(ask, 7, **query, **times)
    with read_all(home / FILE_NAME) as connection:
        found = connection.execute(
            f"SELECT attempt_id, cost_in_nusd FROM entry WHERE {where} AND {within(NOW_S - 3 * DAY_S, NOW_S - DAY_S)} "  # noqa: S608
            "ORDER BY entry DESC"
        ).fetchall()
    told = [
        (f"{row['id']}/{row['attempt']}", None if row["cost_usd"] is None else nusd(row["cost_usd"])) for row in rows
    ]
    assert told == found


async def test_a_request_whose_record_is_gone_is_told_from_the_ledger(ask, home):
    with read_all(home / FILE_NAME) as connection:
        name = connection.execute("SELECT attempt_id FROM entry WHERE attempt_id LIKE '%/2' LIMIT 1").fetchone()[0][:-2]
    shown = await ask(f"requests/{name}")
    assert shown["decision"] is None
    assert [one["number"] for one in shown["attempts"]] == [1, 2]
    assert [one["attempt"] for one in shown["costs"]] == [1, 2]


async def test_series_and_costs_as_csv_are_those_of_the_page(ask):
    month = {"since": str(NOW_S - 30 * DAY_S), "until": str(NOW_S)}
    for path, query in (("spend/series", {"by": "key", "step": "hour", **month}), ("cost-distribution", ALL)):
        table = await ask(path, **query)
        lines = csv.DictReader(io.StringIO(await ask(path, format="csv", **query)))
        assert [*lines] == [{name: cell(row[name]) for name in table["columns"]} for row in table["data"]]
        assert table["data"]


async def test_a_page_of_rows_is_the_same_as_csv_and_in_the_table(ask, home):
    query = {"model": "vendor/model-3", "min_cost": "0.001", "count": "200", "until": str(NOW_S - 40 * DAY_S)}
    table = await ask("requests", **query)
    lines = [*csv.DictReader(io.StringIO(await ask("requests", format="csv", **query)))]
    assert lines == [{name: cell(row[name]) for name in table["columns"]} for row in table["data"]]
    with read_all(home / FILE_NAME) as connection:
        found = connection.execute(
            "SELECT attempt_id, cost_in_nusd, input_tokens, app FROM entry WHERE model = 'vendor/model-3' "
            "AND cost_in_nusd >= 1000000 AND unix_us < ? ORDER BY entry DESC LIMIT 200",
            (int(query["until"]) * 10**6,),
        ).fetchall()
    assert [
        (f"{line['id']}/{line['attempt']}", nusd(line["cost_usd"]), int(line["input_tokens"]), line["app"])
        for line in lines
    ] == found


def cell(value):
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return ";".join(value)
    return "" if value is None else str(value)


@pytest.mark.parametrize("share", [0.999, 0.5, 0.001])
async def test_a_page_goes_on_where_the_one_before_it_ended_wherever_that_is(ask, home, share):
    before = int(ROWS * share)
    page = await ask("requests", before=str(before), count="100", key="key5")
    with read_all(home / FILE_NAME) as connection:
        found = connection.execute(
            "SELECT entry, attempt_id FROM entry WHERE entry < ? AND key_id = 'key5' ORDER BY entry DESC LIMIT 100",
            (before,),
        ).fetchall()
    assert [f"{row['id']}/{row['attempt']}" for row in page["data"]] == [name for _, name in found]
    assert page["next"] == (str(found[-1][0]) if len(found) == 100 else None)


async def test_a_month_of_hours_of_forty_names_is_whole_and_what_is_too_much_is_refused(ask):
    month = {"since": str(NOW_S - 30 * DAY_S), "until": str(NOW_S), "step": "hour"}
    table = await ask("spend/series", by="key", top="40", **month)
    assert len(table["names"]) == 40
    assert len({row["time"] for row in table["data"]}) >= 30 * 24
    assert len(table["data"]) > 0.99 * 30 * 24 * 40
    refused = await ask("spend/series", 400, by="endpoint", top="100", **month)
    assert "fewer names" in refused["error"]["message"]


async def test_roll_ups_and_look_ups_take_no_longer_for_all_the_rows(ask):
    """<= 300 ms for sums and series, <= 500 ms for one indexed filter, or several within a day."""
    month, day = {"since": str(NOW_S - 30 * DAY_S)}, {"since": str(NOW_S - DAY_S)}
    asked = [
        *((0.3, "spend", {"by": by, **ALL}) for by in BY),
        *((0.3, "spend/series", {"by": by, "step": "day", **ALL}) for by in BY),
        *((0.3, "spend/series", {"by": by, "step": "hour", **month}) for by in (*BY, "tag")),
        (0.3, "spend/series", {"by": "key", "step": "hour", "top": "40", **month}),
        (0.3, "cost-distribution", ALL),
        (0.3, "overview", {}),
        *((0.5, "requests", {name: value, "count": "100"}) for name, value in FILTERS.items()),
        *((0.5, "requests", {name: value, "before": str(ROWS // 2)}) for name, value in FILTERS.items()),
        (0.5, "requests", FILTERS | day),
        (0.5, "requests", day | {"user": "user17", "min_cost": "0.1"}),
    ]
    for most_s, path, query in asked:
        started = time.perf_counter()
        await ask(path, **query)
        assert time.perf_counter() - started <= most_s * SLOW_MACHINE, (path, query)
        await asyncio.sleep(0)


FILTERS = {
    "key": "key5",
    "model": "vendor/model-3",
    "provider": "p2",
    "app": "app 3",
    "outcome": "failed",
    "tag": "blue",
}


CONFIG = """
providers:
  p2: {dialect: openai, base_url: "http://127.0.0.1:9", models: {model-3: {serves: m, price: {input: 1, output: 2}}}}
"""
FIRST_SHOWN_MS = 1000 * SLOW_MACHINE
PAINTED = "() => performance.getEntriesByName('first-contentful-paint')[0].startTime"


@contextmanager
def serving(home, folder):
    """A gateway on this ledger, for whoever is on this machine."""
    (folder / "providers.yaml").write_text(CONFIG)
    output = folder / "output"
    with output.open("wb") as file:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("mixgate"), "serve", "--config", folder / "providers.yaml", "--port", "0"],
            stdout=file,
            stderr=subprocess.STDOUT,
            env={"PATH": os.environ["PATH"], "MIXGATE_HOME": str(home)},
        )
    try:
        yield wait_for_url(process, output)
    finally:
        process.kill()  # what it holds is thrown away
        process.wait(60)


@pytest.fixture
def visits(home, tmp_path):
    """Pages in a browser. The last of these tests, as a gateway takes the file for its own."""
    if not CHROMIUM.exists():
        pytest.skip("there is no /usr/bin/chromium here (Debian's package chromium), so no page is tried in a browser")
    playwright = pytest.importorskip("playwright.sync_api")
    with serving(home, tmp_path) as url, playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", NOWHERE_ELSE])
        made = Visits(browser, url)
        yield made
        made.close()
        browser.close()
        assert made.complaints == []


def test_pages_show_all_the_rows_soon_and_turn_over(visits, home):
    month = "since=2025-10-14&until=2025-11-13"
    page = visits.open(f"?{month}&by=key")
    settle(page)
    assert page.evaluate(PAINTED) < FIRST_SHOWN_MS
    spend = page.locator("section[aria-label='Spend over time']")
    assert spend.locator("svg [data-point]").count() == 30 * 9, "thirty days of eight keys and the others"
    spend.get_by_text("As a table").click()
    whole = by_sql(home, "1", within(NOW_S // DAY_S * DAY_S - 30 * DAY_S, NOW_S // DAY_S * DAY_S))[1]
    requests = spend.locator("tbody tr td:nth-child(4)").all_inner_texts()
    assert sum(int(text.replace(",", "")) for text in requests) == whole[0]

    page = visits.open("requests?model=vendor/model-3&key=key5&outcome=failed")
    settle(page)
    assert page.evaluate(PAINTED) < FIRST_SHOWN_MS
    with read_all(home / FILE_NAME) as connection:
        found = connection.execute(
            "SELECT substr(attempt_id, 1, 30) FROM entry WHERE model = 'vendor/model-3' AND key_id = 'key5' "
            "AND outcome = 'failed' ORDER BY entry DESC LIMIT 100"
        ).fetchall()
    shown = []
    for _ in range(2):
        rows = page.locator("tbody tr")
        shown += [(row.get_attribute("title"),) for row in rows.locator("th").all()]
        page.get_by_role("link", name="Older").click()
        page.locator(f"tbody th[title='{shown[-1][0]}']").wait_for(state="detached")
        settle(page)
    assert shown == found
