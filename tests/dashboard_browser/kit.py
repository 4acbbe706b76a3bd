"""A gateway with a week of traffic, and a way to look at its pages that lets nothing pass that it should not do."""

import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace

import httpx

from gateway.observation import TTFT_BUCKETS, MinuteRow
from gateway.state.connection import FILE_NAME
from gateway.state.writer import EndpointEvent
from tests.dashboard_browser import hostile
from tests.fakes.scripted_day import Day

CHROMIUM = Path("/usr/bin/chromium")
TOKEN = "planted-admin-token-0123456789abcdef"
VIEWER = "planted-viewer-token-0123456789abcdef"
START_S = 60.0
WAIT_S = 90
"""For anything on a page: a browser on a busy machine is slow."""
NOWHERE_ELSE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"
CONFIG = """
gateway: {admin_token: env:T_ADMIN, viewer_token: env:T_VIEWER}
providers:
  north: {dialect: openai, base_url: "http://127.0.0.1:9", models: {up: {serves: m, price: {input: 1, output: 2}}}}
  south: {dialect: openai, base_url: "http://127.0.0.1:9", models: {up: {serves: m, price: {input: 3, output: 4}},
          big: {serves: big-model, price: {input: 5, output: 15}}}}
routes:
  m: {policy: ordered, endpoints: [north/up, south/up]}
  big-model: {endpoints: [south/big]}
"""
STEPS = 7 * 8
"""Every three hours of a week."""
REFUSED = {"outcome": "failed", "code": "provider_overloaded"}
PHONE_WIDTH = 375
SIZES = {"phone": {"width": PHONE_WIDTH, "height": 740}, "desk": {"width": 1280, "height": 900}}
POLICY_WATCH = """
addEventListener('securitypolicyviolation', (event) => {
  console.error('policy:', event.violatedDirective, event.blockedURI);
});
"""


def wait_for_url(process, output):
    end = time.monotonic() + START_S
    while time.monotonic() < end:
        for line in output.read_text().splitlines():
            if "base URL" in line:
                return line.split()[-1].removesuffix("/v1")
        assert process.poll() is None, output.read_text()
        time.sleep(0.05)
    raise AssertionError(output.read_text())


def issue_key(url, name):
    """A key that may spend five dollars a day."""
    wanted = {"name": name, "limit": 5, "limit_reset": "daily"}
    headers = {"authorization": f"Bearer {TOKEN}"}
    answer = httpx.post(f"{url}/api/v1/keys", json=wanted, headers=headers, timeout=WAIT_S, trust_env=False)
    assert answer.is_success, answer.text


class TimedDay(Day):
    """Its Attempts follow one another, the decision being at 100 seconds of the monotonic clock."""

    def _attempt(self, attempt_id, unix_s, endpoint_id, how, *rest):
        row, attempt = super()._attempt(attempt_id, unix_s, endpoint_id, how, *rest)
        attempt.started_s = 100.002 + 0.35 * (attempt.number - 1)
        attempt.duration_s = 0.33 if attempt.outcome == "failed" else how.get("duration_ms", 1400) / 1000
        attempt.ttft_s = None if attempt.outcome == "failed" else 0.4
        attempt.upstream_status = 503 if attempt.outcome == "failed" else 200
        return row, attempt


def fill(home, catalogue):
    """A week: most answers at the first try, failovers, a failure, a cancellation, another model, attacks."""
    day, now_s, failed_over = TimedDay(home, catalogue), time.time(), ""
    for at in range(STEPS, 0, -1):
        when = now_s - at * 3 * 3600
        app, tags = ("IDE plugin", ("team-a",)) if at % 3 else ("checkout", ("team-b", "eu"))
        size = 30_000 + 9_000 * (at % 5)
        if at % 10 == 4:
            failed_over = day.ask(when, [("north/up", REFUSED), ("south/up", {"input": size})], app=app, tags=tags)
        else:
            day.ask(when, [("north/up", {"input": size, "output": 4000, "cached": size // 3})], app=app, tags=tags)
        if at % 3 == 1:
            day.ask(when + 5, [("south/big", {"input": 9000 + at, "output": 700})], route="big-model", app=app)
    day.ask(now_s - 90, [("north/up", REFUSED), ("south/up", REFUSED)], app="checkout")
    day.ask(now_s - 80, [("north/up", {"outcome": "cancelled", "cut": True})], app="checkout")
    minute = int(now_s // 60)
    some = b"".join((7 * (at in {4, 5, 6, 9})).to_bytes(4, "little") for at in range(TTFT_BUCKETS))
    day.minutes(*(
        MinuteRow(endpoint_id="north/up", minute=minute - back, ok=30, fail_server=back % 7 == 3, ttft_hist=some)
        for back in range(60)
    ))  # fmt: skip
    day.minutes(*(
        MinuteRow(endpoint_id="south/up", minute=minute - back * 1440, ok=90, fail_timeout=back % 3, rate_limited=1)
        for back in range(6)
    ))  # fmt: skip
    day.events(EndpointEvent(now_s - 600, "north/up", "open", "5 failures in a row"))
    hostile_id, attacks = hostile.write(day._writer)
    day.close()
    with closing(sqlite3.connect(home / FILE_NAME)) as connection, connection:
        connection.execute("UPDATE decision_block SET made_unix_s = ?", [int(now_s)])
        connection.execute("UPDATE decision_table SET used_unix_s = ?", [int(now_s)])
    return SimpleNamespace(failed_over=failed_over, hostile_id=hostile_id, attacks=attacks)


class Visits:
    """Opens pages in one browser, and hears of all that they complain of and of every request that leaves the host."""

    def __init__(self, browser, url):
        self.url = url
        self.complaints = []
        self._browser = browser
        self._contexts = {}

    def open(self, path, *, viewport="desk", theme="light", signed_in=None, fresh=False):
        """A page in a context as described; `signed_in` is the file of a cookie, `fresh` a context of its own."""
        context = self._context(viewport, theme, signed_in, fresh)
        page = context.new_page()
        page.expected = []
        page.on("console", lambda said: self._hear(page, said))
        page.on("pageerror", lambda error: self.complaints.append(f"error: {error}"))
        page.on("dialog", lambda dialog: (self.complaints.append(f"dialog: {dialog.message}"), dialog.dismiss()))
        page.on("request", lambda request: self._watch(request.url))
        page.goto(f"{self.url}/dashboard/{path}")
        return page

    def close(self):
        for context in self._contexts.values():
            context.close()

    def _context(self, viewport, theme, signed_in, fresh):
        key = object() if fresh else (viewport, theme, signed_in)
        if key not in self._contexts:
            self._contexts[key] = self._browser.new_context(
                viewport=SIZES[viewport],
                color_scheme=theme,
                storage_state=signed_in,
                reduced_motion="reduce",
                accept_downloads=True,
            )
            self._contexts[key].add_init_script(POLICY_WATCH)
            self._contexts[key].set_default_timeout(WAIT_S * 1000)
        return self._contexts[key]

    def _hear(self, page, said):
        # A browser writes each refused answer to the console by itself; a test says which one it provokes.
        if said.type in {"error", "warning"} and not any(words in said.text for words in page.expected):
            self.complaints.append(f"{said.type}: {said.text}")

    def _watch(self, url):
        if not url.startswith((f"{self.url}/", "data:", "blob:")):
            self.complaints.append(f"request: {url}")


def sign_in(page, token):
    page.get_by_label("Token").fill(token)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("navigation", name="Pages").wait_for()


def settle(page):
    """Until everything that loads has loaded, and every chart is drawn."""
    page.locator("[aria-busy]").first.wait_for(state="detached")
