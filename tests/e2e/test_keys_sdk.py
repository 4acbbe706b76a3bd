"""OpenRouter's own SDK manages keys here as it does there."""

import asyncio

import openrouter
import pytest

from tests.fakes.gateway import openai_config, running_gateway


def live(url):
    """Everything that the SDK can do with keys."""
    with openrouter.OpenRouter(api_key="admin-0123456789", server_url=f"{url}/api/v1") as operator:
        keys = operator.api_keys
        team = keys.create(name="team", limit=9, limit_reset="monthly")
        made = keys.create(name="app", limit=5.25, limit_reset="daily")
        assert (made.data.limit, made.data.limit_remaining, made.data.limit_reset) == (5.25, 5.25, "daily")
        assert {one.name for one in keys.list().data} == {"team", "app"}
        assert keys.get(hash=made.data.hash).data.name == "app"
        changed = keys.update(hash=made.data.hash, name="other", limit=1, disabled=True).data
        assert (changed.name, changed.limit, changed.limit_reset, changed.disabled) == ("other", 1, "daily", True)
        assert keys.list(include_disabled=False).data[0].name == "team"
        assert len(keys.list(offset=1).data) == 1
        keys.update(hash=made.data.hash, disabled=False)
        with openrouter.OpenRouter(api_key=made.key, server_url=f"{url}/api/v1") as holder:
            own = holder.api_keys.get_current_key_metadata().data
        assert (own.limit, own.is_management_key) == (1, False)
        assert (own.effective_budget.limit_usd, own.effective_budget.scope) == (1, "key_limit")
        assert keys.delete(hash=made.data.hash).DELETED
        assert keys.delete(hash=team.data.hash).DELETED
        assert keys.list().data == []


@pytest.mark.filterwarnings("ignore:.*DEPRECATED:DeprecationWarning")  # members that the SDK itself reads
async def test_openrouters_sdk_manages_keys(tmp_path):
    config = "gateway: {admin_token: env:ADMIN}\n" + openai_config("http://127.0.0.1:9/v1")
    async with running_gateway(config, tmp_path, {"ADMIN": "admin-0123456789"}) as running:
        await asyncio.to_thread(live, running.url)
