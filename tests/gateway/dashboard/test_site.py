"""The dashboard of a whole gateway, over HTTP: who sees what, and what every answer carries."""

import asyncio
import csv
import io

import pytest

from gateway.dashboard.answers import POLICY
from tests.fakes.gateway import chat, openai_config, running_gateway
from tests.fakes.provider import fake_provider, says

ENV = {"ADMIN": "an-admin-token-of-some-length", "VIEWER": "a-viewer-token-of-some-length", "CLIENT": "a-client-key"}
GUARDED = (
    "gateway: {client_keys: [env:CLIENT], admin_token: env:ADMIN, viewer_token: env:VIEWER, "
    "trusted_proxies: [127.0.0.1], hosts: [gate.example]}\n"
)
SECURE = {"host": "gate.example", "x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.7"}
FROM_OWN_PAGE = SECURE | {"origin": "https://gate.example", "sec-fetch-site": "same-origin"}
PLACES = ("session", "overview", "spend", "live", "endpoints", "prices", "requests", "budgets", "events", "savings")
TABLES = (
    *("spend", "spend/series", "cost-distribution", "live", "endpoints", "endpoints/days", "events", "prices"),
    *("requests", "budgets"),
)
SENSELESS = (
    *("spend?by=nothing", "spend?since=yesterday", "spend?since=1h&until=2h", "spend?top=0", "spend?by=model&by=key"),
    *("spend/series?by=day", "spend/series?step=hour&since=60d", "requests?count=0", "requests?count=1001"),
    *("requests?min_cost=-1", "requests?min_cost=nan", "requests?outcome=fine", "requests?format=xml"),
    *("endpoints/minutes", "events?count=many", "overview?x=1", "requests?before=-1", "requests?app=" + "x" * 400),
    *("requests?" + "&".join(f"a{number}=1" for number in range(40)), "spend?name=%ff"),
)


@pytest.fixture
async def open_one(tmp_path):
    """A gateway of this machine alone, and one request answered."""
    async with (
        fake_provider(says("Fine.")) as provider,
        running_gateway(openai_config(provider.base_url), tmp_path) as on,
    ):
        yield on


@pytest.fixture
async def guarded(tmp_path):
    """A gateway with keys and tokens, behind a proxy that ends TLS."""
    async with running_gateway(GUARDED + openai_config("http://127.0.0.1:9"), tmp_path, ENV) as on:
        await flushed(on)  # the store makes its file a moment after the start
        yield on


async def sign_in(on, token, **more):
    return await on.client.post("/dashboard/api/sign-in", json={"token": token}, headers=FROM_OWN_PAGE | more)


async def cookie_for(on, token):
    response = await sign_in(on, token)
    assert response.status_code == 200, response.text
    on.client.cookies.clear()  # each request says itself what it carries
    return response.headers["set-cookie"].partition(";")[0], response.json()


async def test_this_machine_without_keys_sees_everything(open_one):
    for place in PLACES:
        response = await open_one.client.get(f"/dashboard/api/{place}")
        assert response.status_code == 200, (place, response.text)
    session = (await open_one.client.get("/dashboard/api/session")).json()
    assert session == {
        "signed_in": True,
        "role": "admin",
        "csrf": None,
        "sign_in": "open",
        "why": None,
        "expires_at": None,
    }


async def test_every_answer_carries_the_policy(open_one):
    assert b"unsafe" not in POLICY
    for path in (
        "/dashboard",
        "/dashboard/",
        "/dashboard/api/overview",
        "/dashboard/api/nothing",
        "/dashboard/static/x",
    ):
        response = await open_one.client.get(path)
        assert response.headers["content-security-policy"].encode() == POLICY
        assert response.headers["x-content-type-options"] == "nosniff"
        assert response.headers["referrer-policy"] == "no-referrer"
        assert response.headers["x-frame-options"] == "DENY"
        assert "access-control-allow-origin" not in response.headers
    assert (await open_one.client.get("/dashboard/api/overview")).headers["cache-control"] == "no-store"


async def test_pages_are_one_file_and_files_are_kept_by_their_content(open_one):
    page = await open_one.client.get("/dashboard/requests/gen-01")
    assert page.status_code == 200
    assert page.headers["content-type"].startswith("text/html")
    assert (await open_one.client.get("/dashboard")).headers["location"] == "/dashboard/"
    start = page.text.index("/dashboard/static/")
    asset = page.text[start : page.text.index('"', start)]
    kept = await open_one.client.get(asset)
    assert kept.status_code == 200
    assert "immutable" in kept.headers["cache-control"]
    assert (await open_one.client.get("/dashboard/static/app.js")).headers["cache-control"] == "no-cache"
    for bad in ("/dashboard/static/%2e%2e/site.py", "/dashboard/static/none.js", "/dashboard/a/b/c", "/dashboardx"):
        assert (await open_one.client.get(bad)).status_code == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"host": "rebound.example"}, 403),
        ({"host": "rebound.example:8080", "sec-fetch-site": "same-origin"}, 403),
        ({"origin": "https://evil.example"}, 403),
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"x-forwarded-for": "203.0.113.9"}, 403),
    ],
)
async def test_what_this_machine_did_not_ask_itself_is_refused(open_one, headers, status):
    response = await open_one.client.get("/dashboard/api/overview", headers=headers)
    assert response.status_code == status
    assert "data" not in response.text


async def test_a_rebound_name_does_not_even_get_the_page(open_one):
    for path in ("/dashboard/", "/dashboard/static/app.js", "/dashboard/api/session"):
        assert (await open_one.client.get(path, headers={"host": "rebound.example"})).status_code == 403


async def test_without_a_session_there_is_a_page_and_no_figure(guarded):
    assert (await guarded.client.get("/dashboard/", headers=SECURE)).status_code == 200
    for place in PLACES[1:]:
        response = await guarded.client.get(f"/dashboard/api/{place}", headers=SECURE)
        assert (response.status_code, response.json()["error"]["code"]) == (401, "sign_in_required")
    assert (await guarded.client.get("/dashboard/api/requests/gen-1", headers=SECURE)).status_code == 401
    session = (await guarded.client.get("/dashboard/api/session", headers=SECURE)).json()
    assert (session["signed_in"], session["sign_in"]) == (False, "token")


async def test_client_keys_and_admin_tokens_in_headers_open_nothing(guarded):
    for name in ("CLIENT", "ADMIN", "VIEWER"):
        headers = SECURE | {"authorization": f"Bearer {ENV[name]}"}
        assert (await guarded.client.get("/dashboard/api/overview", headers=headers)).status_code == 401
    assert (await sign_in(guarded, ENV["CLIENT"])).status_code == 401


async def test_a_session_lasts_from_sign_in_to_sign_out(guarded):
    cookie, shown = await cookie_for(guarded, ENV["ADMIN"])
    assert cookie.startswith("__Host-mixgate=")
    overview = await guarded.client.get("/dashboard/api/overview", headers=SECURE | {"cookie": cookie})
    assert overview.status_code == 200
    out = FROM_OWN_PAGE | {"cookie": cookie}
    assert (await guarded.client.post("/dashboard/api/sign-out", headers=out)).status_code == 403
    out |= {"x-mixgate-csrf": shown["csrf"]}
    assert (await guarded.client.post("/dashboard/api/sign-out", headers=out)).status_code == 204
    guarded.client.cookies.clear()
    again = await guarded.client.get("/dashboard/api/overview", headers=SECURE | {"cookie": cookie})
    assert again.status_code == 401


async def test_over_plain_http_from_elsewhere_nobody_signs_in_and_is_told_why(guarded):
    plain = FROM_OWN_PAGE | {"x-forwarded-proto": "http", "origin": "http://gate.example"}
    refused = await guarded.client.post("/dashboard/api/sign-in", json={"token": ENV["ADMIN"]}, headers=plain)
    assert refused.status_code == 403
    session = (await guarded.client.get("/dashboard/api/session", headers=plain)).json()
    assert session["sign_in"] == "refused"
    assert "plain http" in session["why"]


async def test_a_sign_in_is_no_form_that_another_site_can_send(guarded):
    form = await guarded.client.post("/dashboard/api/sign-in", data={"token": ENV["ADMIN"]}, headers=FROM_OWN_PAGE)
    assert form.status_code == 400
    foreign = await sign_in(guarded, ENV["ADMIN"], origin="https://evil.example")
    assert foreign.status_code == 403
    assert "set-cookie" not in foreign.headers
    assert (await guarded.client.get("/dashboard/api/sign-in", headers=SECURE)).status_code == 405


@pytest.mark.parametrize("body", [b'{"token": "\xff"}', b'{"token": "\\ud800"}', b'{"token": 1}', b"[" * 4000, b""])
async def test_what_is_no_sign_in_is_refused_in_words(guarded, body):
    headers = FROM_OWN_PAGE | {"content-type": "application/json"}
    response = await guarded.client.post("/dashboard/api/sign-in", content=body, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "invalid_request")
    assert response.headers["content-security-policy"] == POLICY.decode()


async def test_tries_are_counted_by_the_address_that_the_proxy_saw(guarded):
    for _ in range(5):
        assert (await sign_in(guarded, "wrong", **{"x-forwarded-for": "192.0.2.99"})).status_code == 401
    refused = await sign_in(guarded, ENV["ADMIN"], **{"x-forwarded-for": "1.2.3.4, 192.0.2.99"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "too_many_sign_ins")
    assert 0 < int(refused.headers["retry-after"]) <= 60
    assert (await sign_in(guarded, ENV["ADMIN"])).status_code == 200


async def test_a_viewer_is_not_shown_who_asked(guarded):
    key = {
        "authorization": f"Bearer {ENV['CLIENT']}",
        "http-referer": "https://somebody.example",
        "host": "gate.example",
    }
    await guarded.client.post("/v1/chat/completions", json=chat(user="somebody", session_id="s-1"), headers=key)
    await flushed(guarded)
    found = {}
    for name in ("ADMIN", "VIEWER"):
        cookie, _ = await cookie_for(guarded, ENV[name])
        headers = SECURE | {"cookie": cookie}
        table = (await guarded.client.get("/dashboard/api/requests", headers=headers)).json()
        row = found[name] = table["data"][0]
        detail = (await guarded.client.get(f"/dashboard/api/requests/{row['id']}", headers=headers)).json()
        assert detail["asked_by"]["user"] == row["user"]
        filtered = await guarded.client.get("/dashboard/api/requests?user=somebody", headers=headers)
        assert filtered.status_code == (200 if name == "ADMIN" else 403)
        as_csv = await guarded.client.get("/dashboard/api/requests?format=csv", headers=headers)
        assert ("somebody" in as_csv.text) == (name == "ADMIN")
    assert [found["ADMIN"][name] for name in ("user", "session")] == ["somebody", "s-1"]
    assert [found["VIEWER"][name] for name in ("user", "session", "referer")] == [None, None, None]
    assert found["VIEWER"]["model"] == found["ADMIN"]["model"]


async def test_every_table_is_the_same_as_csv(open_one):
    await open_one.client.post("/v1/chat/completions", json=chat("hi"))
    await flushed(open_one)
    for place in TABLES:
        table = (await open_one.client.get(f"/dashboard/api/{place}")).json()
        response = await open_one.client.get(f"/dashboard/api/{place}", params={"format": "csv"})
        assert response.headers["content-type"] == "text/csv; charset=utf-8"
        assert response.headers["content-disposition"].startswith("attachment; filename=")
        lines = list(csv.DictReader(io.StringIO(response.text)))
        assert next(csv.reader(io.StringIO(response.text))) == table["columns"]
        steady = [name for name in table["columns"] if name not in {"back_in_s", "since"}]
        assert [[line[name] for name in steady] for line in lines] == [
            [cell(row[name]) for name in steady] for row in table["data"]
        ]


async def test_what_makes_no_sense_is_refused_in_words(open_one):
    for query in SENSELESS:
        response = await open_one.client.get(f"/dashboard/api/{query}")
        assert response.status_code == 400, query
        assert response.json()["error"]["message"]


async def test_what_is_not_there_is_said_to_be_missing(open_one):
    for path in ("requests/gen-01AAAAAAAAAAAAAAAAAAAAAAAA", "requests/../x", "requests/a b", "nothing"):
        response = await open_one.client.get(f"/dashboard/api/{path}")
        assert response.status_code == 404, response.text
    assert (await open_one.client.post("/dashboard/api/overview")).status_code == 405


async def flushed(on):
    """Until the store has what was settled."""
    assert await asyncio.to_thread(on.gateway._store.flush, 30.0)


def cell(value):
    """A value of the JSON as the CSV has it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return ";".join(value) if isinstance(value, list) else str(value)
