"""LiteLLM's price list: exact prices, tiers as overrides, limits that make sense, and a word on all that is left."""

import json
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.config.load import load
from gateway.imports.draft import ImportSourceError
from gateway.imports.litellm_prices import from_price_list
from gateway.imports.yaml_text import yaml_text
from tests.gateway.imports.price_list import PRICE_LIST, model

AS_OF = "2026-11-22"


def converted(models, **arguments):
    return from_price_list(json.dumps(models).encode(), as_of=AS_OF, **arguments)


def row(models, provider="openai", upstream="m", **arguments):
    return converted(models, **arguments).providers[provider].models[upstream]


def loaded(draft, folder: Path):
    path = folder / "providers.yaml"
    path.write_text(yaml_text(draft))
    return load(path, {})


def test_prices_are_decimal_text_from_end_to_end(tmp_path: Path):
    catalogue = loaded(converted(PRICE_LIST), tmp_path)
    assert catalogue.endpoints["groq/llama-3.3-70b-versatile"].price.input_in_pusd == 590_000
    assert catalogue.endpoints["openai/gpt-4o-mini"].price.cache_read_in_pusd == 75_000
    assert catalogue.endpoints["bedrock/mistral.mixtral-8x7b-instruct-v0:1"].details["ends_on"] == "2027-03-30"


def test_a_price_finer_than_a_pico_usd_is_rounded_and_that_is_said():
    found = row({"m": model("openai", 1, 1) | {"input_cost_per_token": 1.23456789e-07}})
    assert found.facts["price"]["input"] == Decimal("0.123457")
    assert any("input" in note and "rounded" in note for note in found.notes)


def test_above_200k_is_from_200001_on():
    found = row(
        {
            "m": model(
                "openai", 1, 2, input_cost_per_token_above_200k_tokens=3, output_cost_per_token_above_128k_tokens=4
            )
        }
    )
    assert found.facts["price"]["overrides"] == [
        {"output": Decimal(4), "min_prompt_tokens": 128_001},
        {"input": Decimal(3), "min_prompt_tokens": 200_001},
    ]


def test_ranges_of_prompt_sizes_are_tiers_too():
    tiers = [
        {"range": [0, 256_000.0], "input_cost_per_token": 5e-08, "output_cost_per_token": 4e-07},
        {"range": [256_000.0, 1_000_000.0], "input_cost_per_token": 2.5e-07},
    ]
    found = row({"m": {"litellm_provider": "openai", "mode": "chat", "tiered_pricing": tiers}})
    assert found.facts["price"] == {
        "input": Decimal("0.05"),
        "output": Decimal("0.4"),
        "overrides": [{"input": Decimal("0.25"), "min_prompt_tokens": 256_001}],
    }


@pytest.mark.parametrize("bad", [-1e-6, 2.0, "NaN", "free", True, [1], {"a": 1}, "1e999"])
def test_a_price_that_cannot_be_meant_is_left_out_and_that_is_said(bad: object):
    found = row({"m": model("openai", 1, 2) | {"input_cost_per_token": bad}})
    assert "input" not in found.facts["price"]
    assert any("input" in note for note in found.notes)


def test_flags_limits_and_sources_come_along():
    found = row(
        {
            "m": model(
                "openai",
                1,
                2,
                supports_function_calling=True,
                supports_response_schema=True,
                supports_system_messages=False,
                source="https://vendor.example/prices",
            )
        }
    )
    assert found.facts["capabilities"] == {"system": False, "tools": True, "json_object": True, "json_schema": True}
    assert (found.facts["context_tokens"], found.facts["max_output_tokens"]) == (128_000, 16_384)
    assert "https://vendor.example/prices" in found.facts["source"]
    assert found.facts["as_of"] == AS_OF


def test_an_answer_longer_than_the_window_is_not_believed():
    found = row({"m": model("openai", 1, 2, max_input_tokens=1000, max_output_tokens=2000)})
    assert "max_output_tokens" not in found.facts
    assert found.notes


def test_regions_of_bedrock_are_blocks_of_their_own():
    name = "mistral.mixtral-8x7b-instruct-v0:1"
    draft = converted({f"bedrock/eu-west-3/{name}": model("bedrock", 0.59, 0.91), name: model("bedrock", 0.45, 0.7)})
    assert draft.providers["bedrock-eu-west-3"].facts["region"] == "eu-west-3"
    assert "region" not in draft.providers["bedrock"].facts
    assert draft.providers["bedrock"].models[name].facts["price"]["input"] == Decimal("0.45")


def test_models_of_other_vendors_are_counted_and_taken_when_named(tmp_path: Path):
    models = {"gpt": model("openai", 1, 1), "snowflake/x": model("snowflake", 1, 1)}
    draft = converted(models)
    assert list(draft.providers) == ["openai"]
    assert any("snowflake" in note for note in draft.notes)
    bridged = converted(models, only=["snowflake/*"])
    assert bridged.providers["snowflake"].facts["dialect"] == "litellm"
    assert loaded(bridged, tmp_path).endpoints["snowflake/snowflake/x"].upstream_model == "snowflake/x"


def test_prices_without_a_key_are_named():
    draft = converted({"m": model("openai", 1, 1, input_cost_per_token_batches=1, off_peak_pricing=2)})
    assert any("input_cost_per_token_batches" in note and "off_peak_pricing" in note for note in draft.notes)


def test_a_model_that_has_the_id_of_an_endpoint_stands_for_the_same_model(tmp_path: Path):
    draft = converted({"deepseek/chat": model("deepseek", 1, 1), "openrouter/deepseek/chat": model("openrouter", 2, 2)})
    catalogue = loaded(draft, tmp_path)
    assert catalogue.find_route("chat").endpoints == ("deepseek/chat", "openrouter/deepseek/chat")


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b"nonsense", b'{"a": {"mode": "chat"}}', b'{"a": 1e9999999999}', b"[" * 200_000]
)
def test_anything_else_is_refused_with_a_remedy(text: bytes):
    with pytest.raises(ImportSourceError) as refused:
        from_price_list(text, as_of=AS_OF)
    assert refused.value.fix


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
JSON = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner))
FIELDS = st.sampled_from(
    [
        "input_cost_per_token",
        "output_cost_per_token",
        "cache_read_input_token_cost",
        "input_cost_per_token_above_200k_tokens",
        "output_cost_per_token_above_128k_tokens",
        "input_cost_per_request",
        "tiered_pricing",
        "max_input_tokens",
        "max_output_tokens",
        "max_tokens",
        "supports_vision",
        "deprecation_date",
        "source",
    ]
)
VENDORS = st.sampled_from(["openai", "mistral", "bedrock", "openrouter", "deepseek", "azure", "snowflake"])
NAMES = st.text(max_size=12) | st.sampled_from(
    ["gpt", "openai/gpt", "openrouter/openai/gpt", "deepseek/openai/gpt", "azure/azure/x", "bedrock/us-east-1/a.b:0"]
)


@st.composite
def price_lists(draw: st.DrawFn):
    rows = draw(st.dictionaries(NAMES, st.dictionaries(FIELDS, JSON | st.floats(0, 1e-3)), min_size=1, max_size=6))
    return {
        name: {**fields, "litellm_provider": draw(VENDORS), "mode": draw(st.sampled_from(["chat", "responses"]))}
        for name, fields in rows.items()
    }


@given(price_lists())
@example({"<<": {"litellm_provider": "openai", "mode": "chat"}})
@settings(deadline=None)
def test_whatever_the_list_says_the_loader_accepts_the_result(tmp_path_factory, models):
    text = json.dumps(models).replace("NaN", "null").replace("Infinity", "1").replace("-null", "null")
    try:
        draft = from_price_list(text.encode(), as_of=AS_OF, only=["*"])
    except ImportSourceError:
        return
    loaded(draft, tmp_path_factory.mktemp("list"))
