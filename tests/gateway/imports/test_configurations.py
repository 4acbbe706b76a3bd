"""Configurations of other gateways: what they mean here, and that no key of theirs is ever written."""

import json
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.load import load
from gateway.imports.draft import ImportSourceError
from gateway.imports.litellm_proxy import from_proxy_config
from gateway.imports.openrouter_request import Sibling, from_openrouter_request
from gateway.imports.portkey import from_portkey_config
from gateway.imports.recognise import recognise
from gateway.imports.yaml_text import yaml_text

AS_OF = "2026-11-22"
CANARY = "correct-horse-battery"
PROXY = {
    "model_list": [
        {
            "model_name": "chat",
            "litellm_params": {"model": "openai/gpt-4o", "api_key": "os.environ/MY_OPENAI", "rpm": 6, "order": 2},
        },
        {
            "model_name": "chat",
            "litellm_params": {"model": "groq/llama", "api_key": CANARY, "order": 1, "extra_headers": {"k": CANARY}},
        },
        {
            "model_name": "mixtral",
            "litellm_params": {
                "model": "bedrock/eu-west-3/mistral.mixtral-8x7b-instruct-v0:1",
                "aws_secret_access_key": CANARY,
            },
        },
        {
            "model_name": "home",
            "litellm_params": {"model": "hosted_vllm/mix", "api_base": "os.environ/VLLM_URL"},
            "model_info": {"max_input_tokens": 32768, "input_cost_per_token": 1.5e-07, "output_cost_per_token": 0},
        },
        {"model_name": "anything/*", "litellm_params": {"model": "anything/*"}},
    ],
    "router_settings": {
        "routing_strategy": "cost-based-routing",
        "fallbacks": [{"chat": ["mixtral", "missing"]}],
        "model_group_alias": {"gpt-4": "chat", "hidden": {"model": "mixtral", "hidden": True}},
        "redis_password": CANARY,
    },
    "litellm_settings": {"default_fallbacks": ["home"], "num_retries": 3},
    "general_settings": {"master_key": CANARY, "database_url": f"postgres://u:{CANARY}@h/db"},
    "environment_variables": {"OTHER_KEY": CANARY},
}


def proxy(config, env=None):
    return from_proxy_config(yaml.safe_dump(config, sort_keys=False).encode(), "config.yaml", env or {}, as_of=AS_OF)


def loaded(draft, folder: Path):
    path = folder / "providers.yaml"
    path.write_text(yaml_text(draft))
    return load(path, {})


def test_a_proxys_models_fallbacks_and_aliases_come_over(tmp_path: Path):
    draft = proxy(PROXY, {"VLLM_URL": "http://10.0.0.7:8000/v1/"})
    catalogue = loaded(draft, tmp_path)
    chat = catalogue.find_route("gpt-4")
    assert (chat.name, chat.policy) == ("chat", "ordered")
    assert chat.endpoints == ("groq/llama", "openai/gpt-4o")
    assert chat.fallback == ("mixtral",)
    assert catalogue.find_route("hidden").name == "mixtral"
    assert catalogue.find_route("mixtral").fallback == ("home",)
    assert catalogue.providers["bedrock"].region == "eu-west-3"
    home = catalogue.endpoints["vllm/mix"]
    assert (home.base_url, home.context_tokens, home.price.input_in_pusd) == (
        "http://10.0.0.7:8000/v1",
        32768,
        150_000,
    )


def test_what_a_proxy_has_and_we_do_not_is_named(tmp_path: Path):
    text = yaml_text(proxy(PROXY, {"VLLM_URL": "http://10.0.0.7:8000/v1/"}))
    for word in ("rpm", "missing", "anything/*", "num_retries", "database_url", "OTHER_KEY", "client_keys", "env:NAME"):
        assert word in text, word


def test_keys_become_references_and_a_key_written_out_gets_a_variable_to_itself():
    config = {
        "model_list": [
            {"model_name": "a", "litellm_params": {"model": "openai/x", "api_key": CANARY}},
            {"model_name": "b", "litellm_params": {"model": "openai/y", "api_key": "os.environ/OPENAI_API_KEY"}},
            {"model_name": "c", "litellm_params": {"model": "openai/z", "api_key": CANARY + "2"}},
        ]
    }
    draft = proxy(config)
    keys = {upstream: p.facts["api_key"] for p in draft.providers.values() for upstream in p.models}
    assert keys == {"x": "env:OPENAI_API_KEY_2", "y": "env:OPENAI_API_KEY", "z": "env:OPENAI_API_KEY_3"}
    assert sum("written out" in note for note in draft.notes) == 2
    assert CANARY not in yaml_text(draft)


def test_a_model_named_like_an_endpoint_reaches_the_same_one(tmp_path: Path):
    config = {
        "model_list": [
            {"model_name": "openai/gpt-4o", "litellm_params": {"model": "openai/gpt-4o", "api_key": "os.environ/A"}},
            {"model_name": "openai/gpt-4o", "litellm_params": {"model": "openai/gpt-4o", "api_key": "os.environ/B"}},
        ]
    }
    route = loaded(proxy(config), tmp_path).find_route("openai/gpt-4o")
    assert len(route.endpoints) == 2


@pytest.mark.parametrize(
    "url", ["", f"https://u:{CANARY}@h/v1", f"https://h/v1?key={CANARY}", "ftp://h", "os.environ/NO"]
)
def test_a_url_that_is_none_takes_its_deployment_out(url: str):
    config = {
        "model_list": [
            {"model_name": "a", "litellm_params": {"model": "hosted_vllm/x", "api_base": url}},
            {"model_name": "b", "litellm_params": {"model": "mistral/y"}},
        ]
    }
    draft = proxy(config)
    assert list(draft.providers) == ["mistral"]
    assert any("model_list[0]" in note for note in draft.notes)
    assert CANARY not in yaml_text(draft)


PORTKEY = {
    "strategy": {"mode": "fallback", "on_status_codes": [429]},
    "targets": [
        {"provider": "openai", "api_key": CANARY, "override_params": {"model": "gpt-4o", "temperature": 0}},
        {
            "strategy": {"mode": "loadbalance"},
            "override_params": {"model": "shared"},
            "targets": [{"provider": "anthropic", "weight": 0.7}, {"provider": "@mistral-ai", "weight": 0.3}],
        },
        {"virtual_key": CANARY},
        {"provider": "ollama", "custom_host": "http://127.0.0.1:11434", "override_params": {"model": "mix"}},
    ],
    "retry": {"attempts": 3},
}


def portkey(config, name="chat"):
    return from_portkey_config(json.dumps(config).encode(), name, env={}, as_of=AS_OF)


def test_a_tree_of_targets_becomes_a_route_and_what_it_falls_back_on(tmp_path: Path):
    draft = portkey(PORTKEY)
    catalogue = loaded(draft, tmp_path)
    chat = catalogue.find_route("chat")
    assert chat.endpoints == ("openai/gpt-4o",)
    assert chat.fallback == ("chat-2", "ollama/mix")
    assert catalogue.find_route("chat-2").endpoints == ("anthropic/shared", "mistral/shared")
    assert catalogue.endpoints["ollama/mix"].base_url == "http://127.0.0.1:11434/v1"
    text = yaml_text(draft)
    assert CANARY not in text
    for word in ("temperature", "on_status_codes", "targets[2]", "retry", "weights"):
        assert word in text, word


def test_targets_in_order_are_an_ordered_route(tmp_path: Path):
    targets = [
        {"provider": name, "override_params": {"model": "m"}} for name in ("groq", "openai", "groq", "together-ai")
    ]
    route = loaded(portkey({"strategy": {"mode": "fallback"}, "targets": targets}), tmp_path).find_route("chat")
    assert (route.policy, route.endpoints) == ("ordered", ("groq/m", "openai/m", "together/m"))


def test_balanced_groups_that_fall_back_keep_their_ranks(tmp_path: Path):
    def group(*names: str):
        targets = [{"provider": name, "override_params": {"model": "m"}} for name in names]
        return {"strategy": {"mode": "fallback"}, "targets": targets}

    config = {"strategy": {"mode": "loadbalance"}, "targets": [group("openai", "groq"), group("mistral-ai", "xai")]}
    catalogue = loaded(portkey(config), tmp_path)
    assert catalogue.find_route("chat").endpoints == ("openai/m", "mistral/m")
    assert catalogue.find_route("chat").fallback == ("chat-2",)
    assert catalogue.find_route("chat-2").endpoints == ("groq/m", "xai/m")


BEDROCK = Sibling("bedrock/mix", "bedrock", {"dialect": "bedrock_converse"}, "mix")


def openrouter(content, name=None):
    siblings = {"mistralai/mixtral": (BEDROCK,)}
    return from_openrouter_request(json.dumps(content).encode(), name, siblings=siblings, as_of=AS_OF)


def test_the_order_of_models_is_a_route_with_fallbacks(tmp_path: Path):
    draft = openrouter({"models": ["mistralai/mixtral", "openai/gpt-4o:floor"], "temperature": 1})
    catalogue = loaded(draft, tmp_path)
    assert catalogue.find_route("mistralai/mixtral").endpoints == ("openrouter/mistralai/mixtral",)
    assert catalogue.find_route("mistralai/mixtral").fallback == ("openai/gpt-4o",)
    assert "temperature" in yaml_text(draft)


@pytest.mark.parametrize(
    ("provider", "endpoints", "policy"),
    [
        ({"order": ["amazon-bedrock"]}, ("bedrock/mix", "openrouter/mistralai/mixtral"), "ordered"),
        ({"only": ["amazon-bedrock/eu"]}, ("bedrock/mix", "openrouter/mistralai/mixtral"), "ordered"),
        (
            {"order": ["amazon-bedrock"], "ignore": ["amazon-bedrock"]},
            ("openrouter/mistralai/mixtral",),
            "balanced",
        ),
        ({"order": ["together"]}, ("openrouter/mistralai/mixtral",), "balanced"),
        (
            {"order": ["amazon-bedrock"], "sort": {"by": "latency"}},
            ("bedrock/mix", "openrouter/mistralai/mixtral"),
            "latency",
        ),
    ],
)
def test_providers_that_the_catalogue_knows_stand_before_openrouter(tmp_path: Path, provider, endpoints, policy):
    draft = openrouter({"model": "mistralai/mixtral", "provider": {**provider, "zdr": True}}, name="mine")
    route = loaded(draft, tmp_path).find_route("mine")
    assert (route.endpoints, route.policy) == (endpoints, policy)
    assert "provider.zdr" in yaml_text(draft)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (yaml.safe_dump(PROXY), "litellm-proxy"),
        (json.dumps(PROXY), "litellm-proxy"),
        (json.dumps(PORTKEY), "portkey"),
        (json.dumps({"model": "a/b", "provider": {"order": ["x"]}}), "openrouter"),
        (json.dumps({"gpt": {"litellm_provider": "openai"}}), "litellm-prices"),
    ],
)
def test_a_file_is_recognised_by_what_it_holds(content: str, kind: str):
    assert recognise(content.encode(), "file") == kind


@pytest.mark.parametrize("text", [b"", b"[1]", b"a: b", b"{}", b"\xff\xfe", b"a: [", b"model_list: {}"])
def test_a_file_of_no_known_kind_is_refused_with_a_remedy(text: bytes):
    with pytest.raises(ImportSourceError) as refused:
        recognise(text, "file")
    assert refused.value.fix


KEYS = st.sampled_from([CANARY, f"sk-{CANARY}", f"Bearer {CANARY}", f"${CANARY}", f"https://{CANARY}@h/v1"])
WORDS = st.text(max_size=10) | st.sampled_from(["a", "b", "openai/gpt", "mistral/m", "azure/x", "*", "chat"])
SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | WORDS
ANY = st.recursive(
    SCALARS | KEYS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3)
)
URLS = st.sampled_from(["http://h/v1", "https://x.example", "os.environ/URL", "not a url"]) | KEYS


@st.composite
def proxies(draw: st.DrawFn):
    def entry():
        params = draw(
            st.fixed_dictionaries(
                {"model": WORDS},
                optional={
                    "api_key": KEYS,
                    "api_base": URLS,
                    "headers": ANY,
                    "order": SCALARS,
                    "aws_region_name": WORDS,
                },
            )
        )
        info = draw(st.dictionaries(st.sampled_from(["max_tokens", "input_cost_per_token", "note"]), ANY | KEYS))
        return {"model_name": draw(WORDS), "litellm_params": params, "model_info": info}

    names = st.lists(WORDS, max_size=2)
    return {
        "model_list": [entry() for _ in range(draw(st.integers(1, 4)))],
        "router_settings": {
            "fallbacks": draw(st.lists(st.dictionaries(WORDS, names, max_size=2), max_size=2)),
            "model_group_alias": draw(st.dictionaries(WORDS, WORDS, max_size=2)),
            "routing_strategy": draw(WORDS),
        },
        "general_settings": {"master_key": draw(KEYS), "x": draw(ANY)},
        "litellm_settings": {"default_fallbacks": draw(names)},
    }


def holds(convert, folder: Path) -> None:
    """The result is accepted, and neither it nor a refusal holds anything of the planted keys."""
    refusal = ""
    try:
        draft = convert()
    except ImportSourceError as error:
        refusal = f"{error.message} {error.fix}"
    assert CANARY not in refusal
    if not refusal:
        assert CANARY not in yaml_text(draft)
        loaded(draft, folder)


@given(proxies())
@settings(deadline=None)
def test_whatever_a_proxy_says_the_loader_accepts_the_result_and_no_key_is_in_it(tmp_path_factory, config):
    holds(
        lambda: from_proxy_config(json.dumps(config).encode(), "c.yaml", {"URL": "http://u/v1"}, as_of=AS_OF),
        tmp_path_factory.mktemp("proxy"),
    )


TARGETS = st.recursive(
    st.fixed_dictionaries(
        {"provider": st.sampled_from(["openai", "@mistral-ai", "azure-openai", "bedrock", "ollama", "\u00e9"])},
        optional={
            "api_key": KEYS,
            "virtual_key": KEYS,
            "override_params": st.fixed_dictionaries({"model": WORDS}, optional={"stop": ANY}),
            "custom_host": URLS,
            "weight": SCALARS,
        },
    ),
    lambda inner: st.fixed_dictionaries(
        {
            "strategy": st.fixed_dictionaries({"mode": st.sampled_from(["fallback", "loadbalance", "single", "odd"])}),
            "targets": st.lists(inner, min_size=1, max_size=3),
        }
    ),
    max_leaves=8,
)


@given(st.lists(TARGETS, min_size=1, max_size=3), st.sampled_from(["fallback", "loadbalance"]), WORDS, ANY)
@settings(deadline=None)
def test_whatever_a_tree_says_the_loader_accepts_the_result_and_no_key_is_in_it(
    tmp_path_factory, targets, mode, name, rest
):
    config = {"strategy": {"mode": mode}, "targets": targets, "cache": rest}
    holds(lambda: portkey(config, name), tmp_path_factory.mktemp("tree"))


@given(
    st.lists(WORDS, max_size=4),
    st.dictionaries(st.sampled_from(["order", "only", "ignore", "sort", "zdr"]), ANY),
    st.none() | WORDS,
)
@settings(deadline=None)
def test_whatever_a_request_says_the_loader_accepts_the_result_and_no_key_is_in_it(
    tmp_path_factory, models, provider, name
):
    holds(
        lambda: openrouter({"models": [*models, "mistralai/mixtral"], "provider": provider, "user": CANARY}, name),
        tmp_path_factory.mktemp("request"),
    )
