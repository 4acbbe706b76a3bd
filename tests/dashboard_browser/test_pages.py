"""The dashboard's pages in a browser: what they show, where they lead, and that the figures are the API's."""

import csv
import io
import json
import re
import sqlite3
from contextlib import closing
from decimal import Decimal

import pytest

from gateway.state.connection import FILE_NAME
from tests.dashboard_browser.kit import STEPS, TOKEN, VIEWER, settle, sign_in


def api(page, path):
    answer = page.request.get(f"{page.url.split('/dashboard')[0]}/dashboard/api/{path}")
    assert answer.ok, answer.text()
    return answer


def test_a_wrong_token_is_refused_in_words_and_a_right_one_lets_in_until_signed_out(visit):
    page = visit("requests?outcome=failed", fresh=True)
    page.expected = ["401"]
    page.get_by_label("Token").fill("not it")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("alert").get_by_text(re.compile("token", re.IGNORECASE)).wait_for()
    page.expected = []
    sign_in(page, TOKEN)
    assert page.url.endswith("/dashboard/requests?outcome=failed"), "one is where one wanted to go"
    page.get_by_role("heading", name="Requests").wait_for()
    settle(page)
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="Sign in to Mixgate").wait_for()
    assert page.get_by_role("navigation", name="Pages").is_hidden()


def test_every_page_is_reached_from_every_other_by_its_link(visit, admin):
    page = visit("", signed_in=admin)
    for name, address in (("Endpoints", "/endpoints"), ("Requests", "/requests"), ("Live", "/live"),
                          ("Keys and budgets", "/keys"), ("What if", "/what-if"), ("Overview", "/")):  # fmt: skip
        link = page.get_by_role("navigation", name="Pages").get_by_role("link", name=name, exact=True)
        link.click()
        page.locator(f"#pages a[aria-current=page]:text-is('{name}')").wait_for()
        assert page.url.endswith(f"/dashboard{address}")
        settle(page)
        assert page.locator(".failed:visible").count() == 0
        assert page.locator("h1").count() == 1


def test_the_overview_says_what_the_api_says(visit, admin):
    page = visit("?since=7d&by=model", signed_in=admin)
    settle(page)
    overview = api(page, "overview").json()
    tile = page.locator(".tile", has=page.get_by_text("This month", exact=True)).locator(".tile-value")
    assert tile.get_attribute("title") == f"${overview['month']['cost_usd']}"
    series = api(page, "spend/series?by=model&step=day&since=7d&top=8").json()
    chart = page.locator("section[aria-label='Spend over time'] svg")
    assert chart.locator("[data-point]").count() == len([row for row in series["data"] if float(row["cost_usd"])])
    page.locator("section[aria-label='Spend over time'] summary").click()
    cells = page.locator("section[aria-label='Spend over time'] tbody td.number[title]")
    assert [cells.nth(at).get_attribute("title") for at in range(cells.count())] == [
        f"${row['cost_usd']}" for row in series["data"]
    ]


def test_budgets_say_what_is_left_and_lead_to_what_was_spent(visit, admin):
    page = visit("keys", signed_in=admin)
    settle(page)
    row = page.locator("section[aria-label=Budgets] tbody tr", has_text="checkout")
    assert "$5.00" in row.inner_text()
    assert "0 %" in row.inner_text()
    row.get_by_role("link").click()
    page.wait_for_url("**/dashboard/requests?key=*")
    page.get_by_text("No request fits these filters").wait_for()
    page.locator("#pages").get_by_role("link", name="Overview").click()
    settle(page)
    tile = page.locator(".tile", has=page.get_by_text("Budget left", exact=True))
    assert tile.locator(".tile-value").inner_text() == "$5.00"


def test_filters_are_in_the_url_and_back_and_forward_follow_them(visit, admin):
    page = visit("", signed_in=admin)
    page.get_by_role("button", name="30 days").click()
    page.wait_for_url("**/dashboard/?since=30d")
    page.get_by_label("By", exact=True).select_option("app")
    page.wait_for_url("**/dashboard/?since=30d&by=app")
    settle(page)
    assert page.locator(".legend").first.get_by_text("IDE plugin").count() == 1
    page.go_back()
    page.wait_for_url("**/dashboard/?since=30d")
    page.locator("button[aria-pressed=true]:text-is('30 days')").wait_for()
    page.go_forward()
    page.wait_for_url("**&by=app")
    settle(page)
    page.reload()
    settle(page)
    assert page.get_by_label("By", exact=True).input_value() == "app"


def test_from_a_bar_of_a_chart_to_one_request_and_its_decision(visit, admin, gateway):
    page = visit("?since=7d&by=model", signed_in=admin)
    settle(page)
    bar = page.locator("section[aria-label='Spend over time'] svg a[aria-label^='big-model']").last
    words = bar.get_attribute("aria-label")
    bar.hover()
    assert page.locator("#hint").inner_text() == words
    bar.click()
    page.wait_for_url("**/dashboard/requests?model=big-model&since=*&until=*")
    settle(page)
    rows = page.locator("table tbody tr")
    requests = int(re.search(r"([\d,]+) requests", words)[1])
    assert rows.count() == requests, "as many as the bar says"
    assert set(rows.locator("td").nth(0).all_inner_texts()) == {"big-model"}
    rows.first.get_by_role("link").click()
    page.wait_for_url("**/dashboard/requests/gen-*")
    settle(page)
    for title in ("Attempts", "The decision", "Cost"):
        assert (
            page.get_by_role("region", name=title, exact=True).count() >= 1
            or page.locator(f"section[aria-label='{title}']").count() == 1
        )
    assert page.locator("section[aria-label='The decision'] tbody th").first.inner_text() == "south/big"


def test_a_failover_shows_both_attempts_on_the_time_line_and_what_each_cost(visit, admin, gateway):
    page = visit(f"requests/{gateway.failed_over}", signed_in=admin)
    settle(page)
    attempts = page.locator("section[aria-label=Attempts]")
    assert attempts.locator("tbody tr").count() == 2
    assert attempts.locator("svg [data-point]").count() >= 2
    assert "provider_overloaded" in attempts.inner_text()
    detail = api(page, f"requests/{gateway.failed_over}").json()
    sent = [one for one in detail["costs"] if one["lines"]]
    with page.expect_download() as taken:
        attempts.get_by_role("button", name="Attempts as CSV").click()
    rows = list(csv.DictReader(io.StringIO(taken.value.path().read_text())))
    assert [(row["endpoint"], row["code"]) for row in rows] == [("north/up", "provider_overloaded"), ("south/up", "")]
    shown = page.locator("section[aria-label=Cost] tbody tr").count()
    assert shown == sum(len(one["lines"]) for one in sent) > 0


def test_filters_of_the_explorer_leave_what_was_asked_for_and_pages_follow_one_another(visit, admin):
    page = visit("requests", signed_in=admin)
    settle(page)
    assert page.locator("tbody tr").count() == 50
    first = page.locator("tbody th").all_inner_texts()
    page.get_by_role("link", name="Older").click()
    page.wait_for_url("**before=*")
    settle(page)
    assert not set(first) & set(page.locator("tbody th").all_inner_texts())
    page.get_by_label("App").fill("checkout")
    page.get_by_label("Outcome").select_option("failed")
    page.wait_for_url("**outcome=failed*")
    page.get_by_label("App").fill("checkout")
    page.get_by_role("button", name="Apply").click()
    page.wait_for_url("**app=checkout*")
    settle(page)
    expected = api(page, "requests?app=checkout&outcome=failed&count=50").json()["data"]
    assert page.locator("tbody tr").count() == len(expected) > 1
    page.get_by_label("App").fill("nobody")
    page.keyboard.press("Enter")
    page.wait_for_url("**app=nobody*")
    page.get_by_text("No request fits these filters").wait_for()


@pytest.mark.parametrize(
    ("path", "region"),
    [
        ("?since=7d", "Top apps"),
        ("requests?app=checkout", "Requests found"),
        pytest.param("endpoints", "Prices", marks=pytest.mark.full),
        pytest.param("keys", "Spend by key", marks=pytest.mark.full),
    ],
)
def test_csv_and_json_are_the_tables_that_are_shown(visit, admin, path, region):
    page = visit(path, signed_in=admin)
    settle(page)
    section = page.locator(f"section[aria-label='{region}']")
    with page.expect_download() as taken:
        section.get_by_role("link", name=re.compile("CSV")).first.click()
    rows = list(csv.DictReader(io.StringIO(taken.value.path().read_text())))
    with page.expect_download() as taken:
        section.get_by_role("link", name=re.compile("JSON")).first.click()
    answer = json.loads(taken.value.path().read_text())
    assert len(rows) == len(answer["data"]) == section.locator("tbody tr").count()
    for row, said in zip(rows, answer["data"], strict=True):
        for column in answer["columns"]:
            if said[column] is None or (isinstance(said[column], (str, int)) and not isinstance(said[column], bool)):
                assert row[column].removeprefix("'") == (
                    "" if said[column] is None else str(said[column])
                ).removeprefix("'")


def test_the_page_shows_what_is_reckoned_by_hand(visit, admin):
    # Prices per million tokens: north 1 and 2, south/up 3 and 4, south/big 5 and 15. Refused Attempts cost nothing.
    million, expected = Decimal(10**6), {"IDE plugin": Decimal(0), "checkout": Decimal(0)}
    for at in range(1, STEPS + 1):
        app, size = "IDE plugin" if at % 3 else "checkout", 30_000 + 9_000 * (at % 5)
        plain = (size * 3 + 50 * 4) if at % 10 == 4 else (size * 1 + 4000 * 2)
        large = ((9000 + at) * 5 + 700 * 15) if at % 3 == 1 else 0
        expected[app] += (plain + large) / million
    expected["checkout"] += (100 * 1 + 50 * 2) / million  # the client left; what came until then is estimated
    page = visit("?since=30d", signed_in=admin)
    settle(page)
    rows = page.locator("section[aria-label='Top apps'] tbody tr")
    shown = {row.locator("th").inner_text(): row.locator("td").first.get_attribute("title") for row in rows.all()}
    assert {app: Decimal(shown[app].removeprefix("$")) for app in expected} == expected


def test_what_the_page_downloads_is_what_the_file_holds_to_the_nano_dollar(visit, admin, gateway):
    page = visit("?since=30d", signed_in=admin)
    settle(page)
    with page.expect_download() as taken:
        page.get_by_role("link", name="apps as CSV").click()
    rows = csv.DictReader(io.StringIO(taken.value.path().read_text()))
    said = {row["name"].removeprefix("'"): (Decimal(row["cost_usd"]), int(row["attempts"])) for row in rows}
    with closing(sqlite3.connect(f"file:{gateway.home / FILE_NAME}?mode=ro", uri=True)) as connection:
        query = "SELECT app, sum(coalesce(cost_in_nusd, 0)), count(*) FROM entry GROUP BY app"
        held = {app: (Decimal(nusd) / 10**9, count) for app, nusd, count in connection.execute(query)}
    assert said == held


def test_the_keyboard_alone_is_enough(visit, admin):
    page = visit("?since=7d", signed_in=admin)
    settle(page)
    page.keyboard.press("Tab")
    assert page.locator(":focus").inner_text() == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "content"
    points = page.locator("section[aria-label='Spend over time'] svg [tabindex='0']")
    assert points.count() == 1, "a chart is one stop"
    points.focus()
    before = page.locator("#hint").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#hint").inner_text() != before
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    page.wait_for_url("**/dashboard/requests?model=*")


def test_the_theme_follows_the_system_or_the_choice(visit, admin):
    page = visit("keys", signed_in=admin, theme="dark", fresh=True)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    button = page.get_by_role("button", name="Theme")
    button.click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
    button.click()
    page.reload()
    assert page.get_by_role("button", name="Theme: dark").count() == 1
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == dark


def test_an_unknown_request_and_an_unknown_page_say_so(visit, admin):
    page = visit("requests/gen-00000000000000000000000000", signed_in=admin)
    page.expected = ["404"]
    page.get_by_role("alert").wait_for()
    page.goto(page.url.split("/requests")[0] + "/nowhere")
    page.get_by_role("heading", name="There is no such page").wait_for()


def test_what_if_says_what_other_rules_would_have_cost(visit, admin):
    page = visit("what-if?since=7d&on=big-model", signed_in=admin)
    settle(page)
    said = api(page, "what-if?since=7d&on=big-model").json()
    rows = page.locator("section[aria-label=Answers] tbody tr")
    assert rows.count() == len(said["lines"]) > 5
    assert rows.first.locator("th").inner_text() == "All on big-model"
    assert rows.first.locator("td").first.get_attribute("title") == f"${said['lines'][0]['would_have_usd']}"
    page.expected = ["400"]
    page.get_by_label("All on model or endpoint").fill("no-such-model")
    page.keyboard.press("Enter")
    page.get_by_role("alert").get_by_text("no-such-model").wait_for()


def test_a_viewer_sees_figures_and_not_who_asked(visit):
    page = visit("requests", fresh=True)
    sign_in(page, VIEWER)
    settle(page)
    assert page.locator("tbody tr").count() == 50
    assert page.get_by_label("User").count() == page.get_by_label("Session").count() == 0
