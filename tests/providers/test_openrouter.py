import json

import pytest

from providers.base import Endpoint
from providers.messages import ChatRequest, Message
from providers.openrouter import COMPRESSION, OpenRouter
from providers.quirks import Quirks

ENDPOINT = Endpoint(
    id="openrouter/x",
    provider="openrouter",
    model="m",
    upstream_model="vendor/x",
    base_url="https://openrouter.example/api/v1",
    quirks=Quirks(router_fields=True),
)


def encode(**members):
    request = ChatRequest(messages=(Message(role="user", content="hi"),), model="m", **members)
    return json.loads(OpenRouter().encode(request, ENDPOINT, stream=False).body)


def test_prompts_are_not_cut_in_silence():
    assert encode()["plugins"] == [{"id": COMPRESSION, "enabled": False}]
    assert encode(plugins=[{"id": "web"}])["plugins"] == [{"id": "web"}, {"id": COMPRESSION, "enabled": False}]


@pytest.mark.parametrize("plugins", [[{"id": COMPRESSION}], [{"id": "web"}, {"id": COMPRESSION, "enabled": True}]])
def test_a_client_that_decides_about_cutting_decides(plugins):
    assert encode(plugins=plugins)["plugins"] == plugins


def test_the_old_spelling_of_cutting_still_works_and_goes_no_further():
    body = encode(transforms=["middle-out"])
    assert body["plugins"] == [{"id": COMPRESSION, "enabled": True}]
    assert "transforms" not in body


def test_preferences_pass_and_our_own_routing_does_not():
    body = encode(provider={"order": ["a"], "data_collection": "deny"}, models=("b",), route="fallback")
    assert body["provider"] == {"order": ["a"], "data_collection": "deny"}
    assert body["model"] == "vendor/x"
    assert not {"models", "route"} & set(body)


def test_the_key_is_a_bearer_token():
    assert OpenRouter().authorize("k") == {"authorization": "Bearer k"}
