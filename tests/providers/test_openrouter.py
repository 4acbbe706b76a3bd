import json

import pytest

from providers.base import Endpoint
from providers.messages import ChatRequest, Message
from providers.openrouter import OpenRouter, forwarded_preferences
from providers.parameters import COMPRESSION
from providers.quirks import Quirks

ENDPOINT = Endpoint(
    id="openrouter/x",
    provider="openrouter",
    model="m",
    upstream_model="vendor/x",
    base_url="https://openrouter.example/api/v1",
    quirks=Quirks(router_fields=True),
    our_names=frozenset({"openrouter", "bedrock"}),
)


def encode(**members):
    request = ChatRequest(messages=(Message(role="user", content="hi"),), model="m", **members)
    return json.loads(OpenRouter().encode(request, ENDPOINT, stream=False).body)


def test_prompts_are_not_cut_in_silence():
    assert encode()["plugins"] == [{"id": COMPRESSION, "enabled": False}]
    assert encode(plugins=[{"id": "web"}])["plugins"] == [{"id": "web"}, {"id": COMPRESSION, "enabled": False}]


@pytest.mark.parametrize(
    "members",
    [
        {"plugins": [{"id": COMPRESSION}]},
        {"plugins": [{"id": COMPRESSION, "enabled": True}, {"id": "web"}]},
        {"transforms": ["middle-out"]},
    ],
)
def test_what_the_gateway_cuts_itself_is_not_asked_for_again(members):
    body = encode(**members)
    assert body["plugins"][-1] == {"id": COMPRESSION, "enabled": False}
    assert body["plugins"][:-1] == [{"id": "web"}] * ("web" in str(members))
    assert "transforms" not in body


def test_preferences_pass_and_our_own_routing_does_not():
    wishes = {
        "order": ["a", "Bedrock/us-east-1", "b/turbo", "a"],
        "ignore": ["c", "openrouter"],
        "only": ["a", "bedrock"],
        "allow_fallbacks": False,
        "data_collection": "deny",
        "zdr": True,
        "max_price": {"prompt": 1},
        "quantizations": ["fp8"],
        "sort": None,
        "a member of next year": [],
    }
    body = encode(provider=wishes, models=("b",), route="fallback")
    assert body["provider"] == {
        "order": ["a", "b/turbo", "a"],
        "ignore": ["c"],
        "only": ["a"],
        "allow_fallbacks": False,
        "data_collection": "deny",
        "zdr": True,
        "max_price": {"prompt": 1},
        "quantizations": ["fp8"],
    }
    assert wishes["only"] == ["a", "bedrock"]
    assert body["model"] == "vendor/x"
    assert not {"models", "route"} & set(body)


@pytest.mark.parametrize(
    ("wishes", "kept"),
    [
        ({"order": ["bedrock", "openrouter"], "allow_fallbacks": False}, None),
        ({"allow_fallbacks": False}, {"allow_fallbacks": False}),
        ({"only": ["openrouter", "a"]}, None),
        ({"only": ["openrouter", "a"], "ignore": ["b"]}, {"ignore": ["b"]}),
        ({"order": "a", "only": 7, "ignore": [None, "a"]}, {"order": "a", "only": 7, "ignore": [None, "a"]}),
    ],
)
def test_names_of_our_own_providers_are_never_told(wishes, kept):
    assert forwarded_preferences(wishes, ENDPOINT) == kept
    assert encode(provider=wishes).get("provider") == kept


def test_the_key_is_a_bearer_token():
    assert OpenRouter().authorize("k") == {"authorization": "Bearer k"}
