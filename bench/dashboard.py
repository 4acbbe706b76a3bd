"""How soon the dashboard shows something over a large ledger: its look-ups by HTTP, and its pages in a browser."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from bench.figures import Judgement, judge_at_most
from bench.generated_ledger import DAY_S
from bench.measure import Bench
from bench.visited import Visited, Visitor, visit

REPEATS = 5
ROLL_UP_MAX_MS = 300.0
PAGE_MAX_MS = 500.0
PAINT_MAX_MS = 1000.0
KEYSET_PAGES = 20
WAIT_MS = 30_000
CHROMIUM = Path("/usr/bin/chromium")
NOWHERE_ELSE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
BYS = ("model", "provider", "endpoint", "key", "app", "tag", "route", "all")
FILTERS = {
    "key": "key5",
    "model": "vendor%2Fmodel-3",
    "provider": "p2",
    "endpoint": "p2%2Fmodel-3",
    "route": "route3",
    "app": "app%203",
    "tag": "blue",
    "outcome": "failed",
}
"""One of each by which rows are found."""
SEVERAL = "&".join(f"{name}={FILTERS[name]}" for name in ("model", "key", "tag", "outcome"))
PAGES = {
    "overview": ("", ".chart svg"),
    "overview of 90 days by endpoint": ("?since=90d&by=endpoint", ".chart svg"),
    "endpoints": ("endpoints", "tbody tr"),
    "requests": ("requests", "tbody tr"),
    "requests by filters": (f"requests?since=24h&{SEVERAL}", "tbody tr, .empty"),
}
"""Addresses, and what is there once the page shows what it is for."""
_WATCH = """
const seen = globalThis.seen = {};
new MutationObserver(() => {
  const main = document.getElementById('content');
  if (!seen.content && document.querySelector(%s)) seen.content = performance.now();
  const done = main && main.children.length && !document.querySelector('[aria-busy]');
  if (done) seen.settled ||= performance.now(); else delete seen.settled;
}).observe(document, {subtree: true, childList: true, attributes: true, attributeFilter: ['aria-busy']});
"""
_READ = "() => ({...seen, paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime})"


@dataclass(frozen=True, slots=True)
class Opened:
    """How long after somebody went to a page what was there, in ms."""

    paint_ms: float
    """The browser's first contentful paint."""
    content_ms: float
    """The first chart, or the first row."""
    settled_ms: float
    """Everything."""


Seen = dict[str, Any]


def look_ups(now_s: int) -> dict[str, tuple[float, list[str]]]:
    """What is asked, by what it is of: how long it may take, in ms, and each look-up."""
    past = f"since={now_s - 41 * DAY_S}&until={now_s - 40 * DAY_S}"
    return {
        "sums by roll-ups, 90 days": (ROLL_UP_MAX_MS, [f"spend?by={by}&since=90d" for by in (*BYS, "day")]),
        "series by day, 90 days": (ROLL_UP_MAX_MS, [f"spend/series?by={by}&step=day&since=90d" for by in BYS]),
        "series by hour, 30 days": (ROLL_UP_MAX_MS, [f"spend/series?by={by}&step=hour&since=30d" for by in BYS]),
        "series by hour, 30 days, 40 names": (ROLL_UP_MAX_MS, ["spend/series?by=key&step=hour&since=30d&top=40"]),
        "one name's figures": (
            ROLL_UP_MAX_MS,
            ["spend?by=key&name=key5&since=90d", "spend/series?by=app&step=hour&since=30d&name=app%203"],
        ),
        "overview, costs, savings": (
            ROLL_UP_MAX_MS,
            ["overview", "cost-distribution?since=90d", "savings?since=90d"],
        ),
        "endpoints": (ROLL_UP_MAX_MS, ["endpoints", "endpoints/days?days=90", "events?since=90d"]),
        "rows by one filter": (
            PAGE_MAX_MS,
            ["requests", *(f"requests?{name}={value}&count=100" for name, value in FILTERS.items())],
        ),
        "rows by several filters within a day": (
            PAGE_MAX_MS,
            [
                *(f"requests?{SEVERAL}&{times}" for times in ("since=24h", past)),
                *(f"requests?user=user17&min_cost=0.1&{times}" for times in ("since=24h", past)),
            ],
        ),
    }


def measure_dashboard(
    bench: Bench, rows: int, repeats: int, say: Callable[[str], None]
) -> tuple[list[Judgement], Seen]:
    """Each figure against its bar, and all that was measured.

    Raises:
        UnavailableError: The gateway can't be run here, or its dashboard does not answer.
    """
    with visit(bench, rows, say) as visited:
        say("opening pages")
        first, pages = open_pages(visited, repeats)
        say("looking things up")
        took_ms = _look_up(visited, repeats)
    judged = judge_look_ups(took_ms) + judge_pages(first, pages)
    seen = {"look_ups_ms": took_ms, "pages": {name: [_plain(one) for one in opened] for name, opened in pages.items()}}
    return judged, seen | {"first": None if first is None else _plain(first)}


def judge_look_ups(took_ms: Mapping[str, Mapping[str, float]]) -> list[Judgement]:
    """Of each kind the slowest look-up."""
    bars = {name: limit for name, (limit, _) in look_ups(0).items()} | {_KEYSET: PAGE_MAX_MS}
    return [
        judge_at_most(f"{name}: slowest of {len(found)}", "ms", bars[name], max(found.values(), default=None))
        for name, found in took_ms.items()
    ]


def judge_pages(first: Opened | None, pages: Mapping[str, Sequence[Opened]]) -> list[Judgement]:
    """Of each moment the page that is slowest to get there."""
    moments: dict[str, Callable[[Opened], float]] = {
        "first paint": lambda one: one.paint_ms,
        "first chart or row": lambda one: one.content_ms,
        "everything loaded": lambda one: one.settled_ms,
    }
    judged: list[Judgement] = []
    for name, of in moments.items():
        slowest = max((median(map(of, opened)) for opened in pages.values() if opened), default=None)
        judged.append(judge_at_most(f"{name}, slowest page", "ms", PAINT_MAX_MS, slowest))
    early = None if first is None else first.content_ms
    judged.append(judge_at_most("first chart of the first visit since the start", "ms", PAINT_MAX_MS, early))
    return judged


_KEYSET = f"each of {KEYSET_PAGES} pages of rows, one after the other"


def _look_up(visited: Visited, repeats: int) -> dict[str, dict[str, float]]:
    """The median time of each look-up, by its kind."""
    visitor = visited.connect()
    found: dict[str, dict[str, float]] = {}
    for name, (_, paths) in look_ups(int(time.time())).items():
        found[name] = {path: median(visitor.time_ms(path) for _ in range(repeats)) for path in paths}
    found[_KEYSET] = _turn_pages(visitor, f"requests?tag=blue&model={FILTERS['model']}&count=100")
    visitor.close()
    return found


def _turn_pages(visitor: Visitor, path: str) -> dict[str, float]:
    found: dict[str, float] = {}
    before: str | None = None
    for number in range(1, KEYSET_PAGES + 1):
        began_s = time.perf_counter()
        page = json.loads(visitor.get(path if before is None else f"{path}&before={before}"))
        found[f"page {number}"] = (time.perf_counter() - began_s) * 1000
        before = page["next"]
        if before is None:
            break
    return found


def open_pages(visited: Visited, repeats: int) -> tuple[Opened | None, dict[str, list[Opened]]]:
    """How each page opens in Chromium, its cache empty each time; nothing where there is no Chromium or Playwright."""
    try:
        # It is no part of a gateway, and slow to import: only this measurement needs it.
        from playwright.sync_api import sync_playwright  # noqa: PLC0415
    except ImportError:
        return None, {}
    if not CHROMIUM.exists():
        return None, {}
    name, _, value = visited.cookie.partition("=")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", NOWHERE_ELSE])

        def open_page(page_name: str) -> Opened:
            path, content = PAGES[page_name]
            context = browser.new_context()
            context.add_cookies([{"name": name, "value": value, "url": visited.url}])
            context.add_init_script(_WATCH % json.dumps(content))
            page = context.new_page()
            page.goto(f"{visited.url}/dashboard/{path}")
            page.wait_for_function("() => seen.content && seen.settled", timeout=WAIT_MS)
            seen = page.evaluate(_READ)
            context.close()
            return Opened(seen["paint"], seen["content"], seen["settled"])

        first = open_page("overview")
        found = {page_name: [open_page(page_name) for _ in range(repeats)] for page_name in PAGES}
        browser.close()
    return first, found


def _plain(one: Opened) -> dict[str, float]:
    return {"paint_ms": one.paint_ms, "content_ms": one.content_ms, "settled_ms": one.settled_ms}
