"""Who may come to which path with what, case by case: what must be denied is denied, what may be done can be."""

import itertools
from contextlib import asynccontextmanager

import pytest
from msgspec.structs import replace

from gateway.app import Gateway
from gateway.config.load import load
from gateway.keys.changes import Change, NewKey
from gateway.keys.credential import digest_of
from gateway.server.scope import FIELDS, HOST, LOOPBACK

CONFIG = "gateway: {{hosts: [gate.example]{more}}}\nproviders: {{local: {{dialect: local, models: {{}}}}}}\n"
YAML_KEY, ADMIN, METRICS = "yaml-key-0123456789", "admin-token-0123456789", "metrics-token-0123456789"
ENV = {"YAML_KEY": YAML_KEY, "ADMIN": ADMIN, "METRICS": METRICS}
OPEN, ASK, ADMINISTER, WATCH = "anyone", "ask", "administer", "watch"

PATHS = {
    "/livez": (OPEN, {"GET"}),
    "/readyz": (OPEN, {"GET"}),
    "/v1/chat/completions": (ASK, {"POST"}),
    "/api/v1/chat/completions": (ASK, {"POST"}),
    "/v1/models": (ASK, {"GET"}),
    "/api/v1/models/m": (ASK, {"GET"}),
    "/v1/route/explain": (ASK, {"POST"}),
    "/api/v1/key": (ASK, {"GET"}),
    "/metrics": (WATCH, {"GET"}),
    "/api/v1/keys": (ADMINISTER, {"GET", "POST"}),
    "/api/v1/keys/HASH": (ADMINISTER, {"GET", "PATCH", "DELETE"}),
    "/api/v1/keys/HASH/rotate": (ADMINISTER, {"POST"}),
    **dict.fromkeys(
        (
            *("/", "/v1", "/admin", "/v1/keys", "/v1/key", "/api/v1/keys/", "//api/v1/keys", "/api/v1//keys"),
            *("/API/v1/keys", "/api/v1/keys/../key", "/api/v1/keys;x", "/api/v1/keys/HASH/", "/api/v1/keys/HASH/x"),
            *("/livez/../api/v1/keys", "/livez/", "/api/v1/keys\x00", "/api/v1/key/"),
        ),
        None,
    ),
}
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CLIENTS = {"issued", "rotated", "old, overlapping", "child", "yaml"}
BAD = {"disabled", "expired", "deleted", "old, over", "child of a disabled team", "wrong secret", "wrong id", "digest"}
BAD |= {"hash", "public id", "nothing", "basic", "empty", "unknown", "two that differ"}
ADMINS = {"admin", "admin as x-api-key"}
PLACES = {
    "here": ("localhost", True, {}),
    "from outside": ("gate.example", False, {}),
    "by a proxy": ("localhost", True, {b"x-forwarded-for": b"198.51.100.7"}),
    "rebound": ("evil.example", True, {}),
    "from outside as localhost": ("localhost", False, {}),
}


@asynccontextmanager
async def gateway_in(tmp_path, more=""):
    (tmp_path / "providers.yaml").write_text(CONFIG.format(more=more))
    gateway = Gateway(load(tmp_path / "providers.yaml", ENV), tmp_path / "home")
    await gateway.start()
    try:
        yield gateway
    finally:
        await gateway.aclose()


async def issue(gateway, name, **wish):
    issued = await gateway.access.office.create(NewKey(name=name, **wish))
    return issued.record, issued.text.reveal().encode()


async def credentials(gateway):
    """Headers by what they are."""
    office = gateway.access.office
    record, good = await issue(gateway, "issued")
    found = {"issued": good, "yaml": YAML_KEY.encode(), "admin": ADMIN.encode(), "metrics": METRICS.encode()}
    for name in ("disabled", "deleted", "old, overlapping", "old, over", "expired"):
        one, found[name] = await issue(gateway, name)
        if name == "expired":
            gateway.access.ring.put(replace(one, expires_us=one.created_us + 1))
        elif name == "disabled":
            await office.change(one.id, Change(disabled=True))
        elif name == "deleted":
            await office.delete(one.id)
        elif name == "old, overlapping":
            found["rotated"] = (await office.rotate(one.id, 3600)).text.reveal().encode()
        elif name == "old, over":
            await office.rotate(one.id, 0)
    team, _ = await issue(gateway, "team")
    _, found["child"] = await issue(gateway, "child", parent=team.id)
    off, _ = await issue(gateway, "off")
    _, found["child of a disabled team"] = await issue(gateway, "child of off", parent=off.id)
    await office.change(off.id, Change(disabled=True))
    found |= {
        "wrong secret": good[:20] + b"A" * 40,
        "wrong id": b"mg-00000000" + good[11:],
        "digest": digest_of(gateway.access._secrets.pepper, good).hex().encode(),
        "hash": record.hash.encode(),
        "public id": record.id.encode(),
        "unknown": b"sk-nobody",
        "empty": b"",
        "home": gateway.access._secrets.admin_token.reveal().encode(),
    }
    headers = {name: {b"authorization": b"Bearer " + text} for name, text in found.items()}
    headers["nothing"] = {}
    headers["basic"] = {b"authorization": b"Basic " + good}
    headers["admin as x-api-key"] = {b"x-api-key": ADMIN.encode()}
    headers["two that differ"] = {b"authorization": b"Bearer " + good, b"x-api-key": ADMIN.encode()}
    return headers


async def status_of(gateway, path, method, place, fields):
    host, loopback, more = PLACES[place]
    sent = []

    async def receive():
        return {"type": "http.request", "body": b"{}"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "query_string": b"",
        HOST: host,
        LOOPBACK: loopback,
        FIELDS: {b"content-type": b"application/json", **more, **fields},
    }
    await gateway.application(scope, receive, send)
    return sent[0]["status"]


def rights_of(name, place, *, keyed, admin_token):  # noqa: PLR0911  # one line per rule
    """What a credential gives, from a place: rights, or the status of the refusal. Written apart from the code."""
    host, loopback, more = PLACES[place]
    if host == "evil.example":
        return 403
    is_here = loopback and host == "localhost" and not more
    if not keyed and not is_here:
        return 403
    if not keyed and not admin_token:
        return {OPEN, ASK, ADMINISTER, WATCH}
    if keyed and name in BAD:
        return 401
    if name == "home" and not is_here:
        return 403
    if name in {"home", *(ADMINS if keyed else {"admin"})}:
        return {OPEN, ADMINISTER, WATCH}
    if name == "metrics":
        return {OPEN, WATCH}
    return {OPEN, ASK} if keyed else {OPEN, ASK, WATCH}


def expected(path, method, rights):
    """The statuses that may come; None where anything but a denial may."""
    place = PATHS[path]
    if place is not None and place[0] == OPEN:
        return None if method in {*place[1], "HEAD"} else {405}
    if isinstance(rights, int):
        return {rights}
    if place is None:
        return {404}
    if place[0] not in rights:
        return {403}
    return None if method in place[1] or (method == "HEAD" and "GET" in place[1]) else {405}


async def try_all(gateway, headers, *, keyed, admin_token):
    wrong, count = [], 0
    for path, method, place, name in itertools.product(PATHS, METHODS, PLACES, headers):
        is_admin = "HASH" in path and name in {"home", "admin"}
        victim, _ = await issue(gateway, f"victim {count}") if is_admin else (None, b"")
        real = path.replace("HASH", "0" * 64 if victim is None else victim.hash)
        status = await status_of(gateway, real, method, place, headers[name])
        allowed = expected(path, method, rights_of(name, place, keyed=keyed, admin_token=admin_token))
        if status not in allowed if allowed is not None else status in {401, 403, 405, 500}:
            wrong.append((path, method, place, name, status, allowed))
        count += 1
    assert wrong == []
    assert count >= 2_000
    return count


@pytest.mark.parametrize("more", [", client_keys: [env:YAML_KEY], admin_token: env:ADMIN, metrics_token: env:METRICS"])
async def test_every_path_is_closed_to_everybody_who_has_no_right_to_it(tmp_path, more):
    async with gateway_in(tmp_path, more) as gateway:
        await try_all(gateway, await credentials(gateway), keyed=True, admin_token=True)


@pytest.mark.parametrize("more", ["", ", admin_token: env:ADMIN"])
async def test_without_any_key_this_machine_alone_may_call(tmp_path, more):
    async with gateway_in(tmp_path, more) as gateway:
        home = gateway.access._secrets.admin_token.reveal().encode()
        bearers = {"admin": ADMIN.encode(), "home": home, "unknown": b"sk-nobody", "empty": b""}
        headers = {name: {b"authorization": b"Bearer " + text} for name, text in bearers.items()}
        headers |= {"nothing": {}, "basic": {b"authorization": b"Basic eDp5"}}
        wrong = []
        for path, method, place, name in itertools.product(PATHS, METHODS, PLACES, headers):
            if path == "/api/v1/keys" and method == "POST":
                continue  # it would end the test's own condition
            status = await status_of(gateway, path.replace("HASH", "0" * 64), method, place, headers[name])
            rights = rights_of(name, place, keyed=False, admin_token=bool(more))
            allowed = expected(path, method, rights)
            if status not in allowed if allowed is not None else status in {401, 403, 405, 500}:
                wrong.append((path, method, place, name, status, allowed))
        assert wrong == []


async def test_the_first_key_closes_the_door_and_the_last_one_opens_it(tmp_path):
    async with gateway_in(tmp_path) as gateway:
        assert await status_of(gateway, "/v1/models", "GET", "here", {}) == 200
        record, text = await issue(gateway, "one")
        bearer = {b"authorization": b"Bearer " + text}
        assert await status_of(gateway, "/v1/models", "GET", "here", {}) == 401
        assert await status_of(gateway, "/v1/models", "GET", "from outside", bearer) == 200
        await gateway.access.office.change(record.id, Change(disabled=True))
        assert await status_of(gateway, "/v1/models", "GET", "here", {}) == 401
        assert await status_of(gateway, "/v1/models", "GET", "here", bearer) == 401
        await gateway.access.office.delete(record.id)
        assert await status_of(gateway, "/v1/models", "GET", "here", {}) == 200
        assert await status_of(gateway, "/v1/models", "GET", "from outside", bearer) == 403
