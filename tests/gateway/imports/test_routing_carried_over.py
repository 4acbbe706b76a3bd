"""How other gateways share, limit and fall back: carried over where ours means the same, noted where it does not."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.attempts import TOTAL_TIMEOUT_S, WHOLE_TIMEOUT_S
from gateway.config.load import load
from gateway.imports.amounts import seconds, weight
from gateway.imports.litellm_proxy import USUAL_TOTAL_S, from_proxy_config
from gateway.imports.portkey import from_portkey_config
from gateway.imports.yaml_text import yaml_text

AS_OF = "2026-11-22"


def deployment(model, public="chat", **params):
    return {"model_name": public, "litellm_params": {"model": model, **params}}


def proxy(*deployments, **sections):
    text = yaml.safe_dump({"model_list": [*deployments], **sections}, sort_keys=False)
    return from_proxy_config(text.encode(), "config.yaml", {}, as_of=AS_OF)


def portkey(config):
    return from_portkey_config(json.dumps(config).encode(), "chat", env={}, as_of=AS_OF)


def loaded(draft, folder: Path):
    path = folder / "providers.yaml"
    path.write_text(yaml_text(draft))
    return load(path, {})


def route(draft, folder: Path, name="chat"):
    return loaded(draft, folder).find_route(name)


TWO = (deployment("openai/gpt"), deployment("groq/llama"))


@pytest.mark.parametrize(
    ("strategy", "policy", "noted"),
    [
        ("least-busy", "least_busy", False),
        ("latency-based-routing", "latency", False),
        ("cost-based-routing", "price", False),
        ("simple-shuffle", "balanced", False),
        ("usage-based-routing-v2", "balanced", True),
    ],
)
def test_a_strategy_with_a_name_here_comes_over(tmp_path: Path, strategy: str, policy: str, noted: bool):
    draft = proxy(*TWO, router_settings={"routing_strategy": strategy})
    assert route(draft, tmp_path).policy == policy
    assert any("routing strategy" in note for note in draft.notes) == noted


@pytest.mark.parametrize("settings", [{}, {"routing_strategy": "simple-shuffle"}])
def test_weights_of_a_shuffle_are_weights_here(tmp_path: Path, settings):
    own = (
        deployment("openai/gpt", weight=9),
        deployment("groq/llama", weight=0.5),
        deployment("mistral/big"),
        deployment("groq/llama", weight=1),
    )
    draft = proxy(*own, router_settings=settings)
    found = route(draft, tmp_path)
    assert found.policy == "weighted"
    assert found.weights == {"openai/gpt": 9, "groq/llama": 1.5, "mistral/big": 0}
    assert "not carried over" not in yaml_text(draft)


@pytest.mark.parametrize(
    ("first", "second", "settings"),
    [
        ({"weight": 1, "order": 1}, {"weight": 2, "order": 2}, {}),
        ({"weight": 1}, {"weight": 2}, {"routing_strategy": "least-busy"}),
        ({"weight": 0}, {"weight": 0}, {}),
        ({"weight": 1}, {"weight": "many"}, {}),
        ({"weight": 1}, {"weight": -2}, {}),
    ],
)
def test_weights_that_cannot_count_are_noted(tmp_path: Path, first, second, settings):
    draft = proxy(deployment("openai/gpt", **first), deployment("groq/llama", **second), router_settings=settings)
    assert route(draft, tmp_path).policy != "weighted"
    assert yaml_text(draft).count(": weight") == 2


def test_timeouts_become_those_of_the_route(tmp_path: Path):
    own = {"timeout": 300, "stream_timeout": 30}
    draft = proxy(deployment("openai/gpt", **own), deployment("groq/llama", **own))
    limits = route(draft, tmp_path).timeouts
    assert (limits.whole_timeout_s, limits.first_token_timeout_s, limits.last_first_token_timeout_s) == (300, 30, 30)
    assert limits.idle_timeout_s is limits.total_timeout_s is None
    assert "not carried over" not in yaml_text(draft)


def test_a_limit_of_the_whole_proxy_holds_where_there_is_no_other(tmp_path: Path):
    draft = proxy(
        deployment("openai/gpt"),
        deployment("groq/llama", "other", timeout=20),
        router_settings={"stream_timeout": 4.5},
        litellm_settings={"request_timeout": 1200},
    )
    catalogue = loaded(draft, tmp_path)
    limits = catalogue.find_route("chat").timeouts
    assert (limits.whole_timeout_s, limits.total_timeout_s, limits.first_token_timeout_s) == (1200, 1200, 4.5)
    assert catalogue.find_route("other").timeouts.whole_timeout_s == 20
    assert not draft.notes


def test_limits_that_differ_or_are_none_are_noted(tmp_path: Path):
    draft = proxy(
        deployment("openai/gpt", timeout=20),
        deployment("groq/llama", timeout=30),
        deployment("mistral/big", "other", stream_timeout="os.environ/LIMIT"),
        router_settings={"timeout": 0},
        litellm_settings={"timeout": 5},
    )
    catalogue = loaded(draft, tmp_path)
    assert catalogue.find_route("chat").timeouts == catalogue.find_route("other").timeouts
    text = yaml_text(draft)
    assert text.count(": timeout") == 4  # two rows, the router's and the library's
    assert text.count(": stream_timeout") == 1


def test_the_usual_limits_need_not_be_written(tmp_path: Path):
    assert USUAL_TOTAL_S == WHOLE_TIMEOUT_S == TOTAL_TIMEOUT_S
    draft = proxy(*TWO, litellm_settings={"request_timeout": 600})
    assert not draft.routes
    assert not draft.notes


def test_fallbacks_for_long_prompts_are_fallbacks_and_it_is_said_what_is_different(tmp_path: Path):
    draft = proxy(
        deployment("openai/gpt"),
        deployment("groq/llama", "large"),
        deployment("mistral/big", "larger"),
        litellm_settings={
            "fallbacks": [{"chat": ["large"]}],
            "context_window_fallbacks": [{"chat": ["large", "larger", "missing"]}, {"nobody": ["large"]}],
            "content_policy_fallbacks": [{"chat": ["larger"]}],
        },
    )
    assert route(draft, tmp_path).fallback == ("large", "larger")
    (note,) = draft.routes["chat"].notes
    assert '"larger"' in note
    assert '"large"' not in note
    assert any("missing" in note for note in draft.notes)
    assert any("nobody" in note for note in draft.notes)
    assert any("content_policy_fallbacks" in note for note in draft.notes)


def target(provider, **more):
    return {"provider": provider, "override_params": {"model": "m"}, **more}


def sharing(*targets, mode="loadbalance", **more):
    return {"strategy": {"mode": mode}, "targets": [*targets], **more}


def test_weights_of_a_loadbalance_are_weights_here(tmp_path: Path):
    found = route(
        portkey(sharing(target("openai", weight=0.75), target("groq"), target("xai", weight=0), target("groq"))),
        tmp_path,
    )
    assert (found.policy, found.weights) == ("weighted", {"openai/m": 0.75, "groq/m": 2, "xai/m": 0})


def test_without_weights_a_loadbalance_is_balanced(tmp_path: Path):
    found = route(portkey(sharing(target("openai"), target("groq"))), tmp_path)
    assert (found.policy, found.endpoints) == ("balanced", ("openai/m", "groq/m"))


def test_a_group_in_a_group_shares_what_the_group_has(tmp_path: Path):
    inner = sharing(target("groq", weight=1), target("xai", weight=3), weight=0.4)
    found = route(portkey(sharing(target("openai", weight=0.6), inner)), tmp_path)
    assert found.weights == {"openai/m": 0.6, "groq/m": 0.1, "xai/m": 0.3}


def test_what_weighted_groups_fall_back_on_has_their_weights(tmp_path: Path):
    members = [
        sharing(target(one), target(other), mode="fallback", weight=share)
        for one, other, share in (("openai", "groq", 0.9), ("mistral-ai", "xai", 0.1))
    ]
    catalogue = loaded(portkey(sharing(*members)), tmp_path)
    assert catalogue.find_route("chat").weights == {"openai/m": 0.9, "mistral/m": 0.1}
    assert catalogue.find_route("chat").fallback == ("chat-2",)
    assert catalogue.find_route("chat-2").weights == {"groq/m": 0.9, "xai/m": 0.1}


@pytest.mark.parametrize("odd", ["much", -1, None, True, 1e300])
def test_weights_that_are_none_are_noted(tmp_path: Path, odd):
    draft = portkey(sharing(target("openai", weight=odd), target("groq", weight=1)))
    assert route(draft, tmp_path).policy == "balanced"
    assert any("weights" in note for note in draft.notes)


NUMBERS = st.integers() | st.decimals(allow_nan=True, allow_infinity=True) | st.booleans() | st.text() | st.none()


@given(NUMBERS)
def test_an_amount_is_one_that_the_loader_takes_or_none(value):
    for read, least, most in ((weight, 0, 1_000_000), (seconds, Decimal("0.05"), 86_400)):
        found = read(value)
        assert found is None or least <= found <= most
    assert weight(Decimal("1e999999999")) is weight(Decimal("1e-999999999")) is None
