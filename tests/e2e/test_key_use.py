"""When a key was last used: to the hour, from the roll-ups that the ledger writes anyway."""

import asyncio
import sqlite3
import time
from datetime import UTC, datetime

from gateway.state.connection import FILE_NAME
from gateway.state.key_use import DAY_S, HOUR_S, read_last_used
from gateway.state.schema import migrate
from tests.e2e.test_budgets import ADMIN, KEYS, ask, bearer, configured, issue
from tests.fakes.gateway import running_gateway
from tests.fakes.provider import fake_provider, says


async def test_a_key_shows_the_hour_in_which_it_was_last_used(tmp_path):
    async with fake_provider(says("ok")) as provider:
        async with running_gateway(configured(provider.base_url), tmp_path, {"ADMIN": ADMIN}) as on:
            key, item = await issue(on)
            other, _ = await issue(on, "idle")
            before = (await on.client.get(f"{KEYS}/{item['hash']}", headers=bearer(ADMIN))).json()["data"]
            asked_unix_s = int(time.time())
            assert (await ask(on, key)).status_code == 200
            assert await asyncio.to_thread(on.gateway._store.flush, 10)
            on.gateway.access.routes._desk._looked_unix_s = 0.0
            listed = (await on.client.get(KEYS, headers=bearer(ADMIN))).json()["data"]
            own = (await on.client.get("/api/v1/key", headers=bearer(key))).json()["data"]
    assert item["last_used_at"] is before["last_used_at"] is None
    hours = {datetime.fromtimestamp(at // HOUR_S * HOUR_S, UTC) for at in (asked_unix_s, int(time.time()))}
    said = {one["name"]: one["last_used_at"] for one in listed}
    assert datetime.fromisoformat(said["app"]) in hours
    assert said["idle"] is None
    assert own["last_used_at"] == said["app"]
    assert other


def test_older_use_is_known_to_the_day_and_answers_given_again_count(tmp_path):
    path = tmp_path / FILE_NAME
    assert read_last_used(path, 1e9) == {}
    now_s = 10**9
    connection = sqlite3.connect(path)
    migrate(connection)
    spent = ", ".join(["0"] * 11)
    used = (("old", 5 * DAY_S), ("old", 9 * DAY_S), ("new", 3 * HOUR_S), ("", 0))
    for key, ago_s in used:
        for table, span_s in (("spend_hour", HOUR_S), ("spend_day", DAY_S)):
            statement = f"INSERT INTO {table} VALUES ('key', ?, ?, {spent})"  # noqa: S608  # our own names
            connection.execute(statement, ((now_s - ago_s) // span_s, key))
    connection.execute("INSERT INTO cache_hour VALUES (?, 'kept', 'm', 'm', 1, 0)", (now_s // HOUR_S,))
    connection.commit()
    connection.close()
    assert read_last_used(path, now_s) == {
        "old": (now_s - 5 * DAY_S) // DAY_S * DAY_S,
        "new": (now_s - 3 * HOUR_S) // HOUR_S * HOUR_S,
        "kept": now_s // HOUR_S * HOUR_S,
    }
