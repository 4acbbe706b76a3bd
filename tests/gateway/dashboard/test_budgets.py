"""What is left of budgets, as the dashboard shows it: of every key that has one, the tightest first."""

import asyncio

from tests.e2e.test_budgets import ADMIN, ask, configured, issue
from tests.fakes.gateway import running_gateway
from tests.fakes.provider import fake_provider, says


async def test_budgets_are_shown_with_what_is_left_and_when_they_begin_anew(tmp_path):
    async with (
        fake_provider(says("Hello you two.")) as provider,  # 7 tokens in for 1, 3 out for 2 USD per million
        running_gateway(configured(provider.base_url), tmp_path, {"ADMIN": ADMIN}) as on,
    ):
        key, record = await issue(on, "a team", mixgate={"budget": {"day": "0.5", "ever": "2"}})
        await issue(on, "no budget")
        assert (await ask(on, key)).status_code == 200
        assert await asyncio.to_thread(on.gateway._store.flush, 30.0)
        own = {"origin": on.url}
        assert (await on.client.post("/dashboard/api/sign-in", json={"token": ADMIN}, headers=own)).status_code == 200
        rows = (await on.client.get("/dashboard/api/budgets")).json()["data"]
        spend = (await on.client.get("/dashboard/api/spend", params={"by": "key"})).json()["data"]
    day, ever = rows
    assert (day["key"], day["label"], day["window"], ever["window"]) == (
        record["mixgate"]["id"],
        "a team",
        "day",
        "ever",
    )
    assert [day[name] for name in ("budget_usd", "spent_usd", "left_usd")] == ["0.50", "0.000013", "0.499987"]
    assert [ever[name] for name in ("budget_usd", "left_usd", "resets_at")] == ["2.00", "1.999987", None]
    assert day["resets_at"].endswith("T00:00:00Z")
    assert [(row["name"], row["label"], row["cost_usd"]) for row in spend] == [(day["key"], "a team", "0.000013")]
