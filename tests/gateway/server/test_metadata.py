"""What OpenRouter's clients are told: in the shape that its own SDK reads, and true."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from openrouter.components import OpenRouterMetadata

from gateway.attempts import Attempt
from gateway.config.catalogue import Route
from gateway.observation import UNOBSERVED, Observation
from gateway.routing.candidate import Candidate, Plan
from gateway.routing.compression import Compressed
from gateway.routing.exclusion import Exclusion
from gateway.server.metadata import LISTED_MAX, availability, openrouter_metadata, unknown_model
from providers.base import Endpoint
from providers.messages import ChatRequest, Message
from tests.fakes.catalogues import catalogue


def endpoint(name: str, region: str | None = None) -> Endpoint:
    provider, _, model = name.partition("/")
    return Endpoint(id=name, provider=provider, model=model, upstream_model=model, base_url="http://h", region=region)


def seat(name: str, stage: int = 0, observation: Observation = UNOBSERVED) -> Candidate:
    return Candidate(endpoint(name, "eu"), observation, stage)


PLAN = Plan(
    route="m",
    policy="balanced",
    candidates=(seat("a/m"), seat("b/m"), seat("c/n", stage=1)),
    excluded=(Exclusion("d/m", "context", "it takes 100 tokens", 200, 100),),
)


def tried(name: str, outcome: Any = "ok", status: int | None = None, code: str | None = None) -> Attempt:
    return Attempt(1, endpoint(name, "eu"), 0.0, outcome=outcome, upstream_status=status, code=code, duration_s=1.25)


def metadata(*attempts: Attempt, requested: str = "m", **options: Any) -> dict[str, Any]:
    found = openrouter_metadata(PLAN, attempts, requested=requested, **options)
    OpenRouterMetadata.model_validate_json(msgspec.json.encode(found))
    return found


def test_an_answer_of_the_first_one_asked():
    assert metadata(tried("a/m")) == {
        "requested": "m",
        "strategy": "direct",
        "region": "eu",
        "summary": "available=3, selected=a",
        "attempt": 1,
        "is_byok": False,
        "endpoints": {
            "total": 4,
            "available": [
                {"provider": "a", "model": "m", "selected": True},
                {"provider": "b", "model": "m", "selected": False},
                {"provider": "c", "model": "n", "selected": False},
            ],
        },
        "params": {},
        "attempts": [{"provider": "a", "model": "m", "status": 200}],
        "pipeline": [],
        "generation_time": 1250,
    }


def test_an_answer_after_failures_and_by_another_model():
    found = metadata(
        tried("a/m", "failed", 429), tried("b/m", "failed", None, "connect_failed"), tried("c/n", "running")
    )
    assert found["strategy"] == "fallback"
    assert found["attempt"] == 3
    assert [one["status"] for one in found["attempts"]] == [429, 502, 200]
    assert [one["selected"] for one in found["endpoints"]["available"]] == [False, False, True]


def test_no_answer_selects_nobody():
    found = metadata(tried("a/m", "failed", 200, "provider_stalled"), tried("a/m", "cancelled"))
    assert found["summary"] == "available=3, selected=none"
    assert found["region"] is None
    assert [one["status"] for one in found["attempts"]] == [504, 499]
    assert "generation_time" not in found
    assert metadata()["attempts"] == []


@pytest.mark.parametrize(
    ("requested", "strategy"),
    [("m", "direct"), ("m:nitro", "direct"), ("vendor/m", "alias"), ("m:free", "free"), ("vendor/m:floor", "alias")],
)
def test_the_strategy_says_how_the_name_was_understood(requested: str, strategy: str):
    assert metadata(tried("a/m"), requested=requested)["strategy"] == strategy


def test_a_cut_prompt_is_told():
    request = ChatRequest(messages=(Message(role="user", content="u"),))
    (stage,) = metadata(tried("a/m"), compressed=Compressed(request, 4, 1))["pipeline"]
    assert (stage["type"], stage["name"]) == ("context_compression", "context-compression")
    assert stage["data"] == {"engine": "middle-out", "dropped_messages": 4, "cut_texts": 1}
    assert metadata(tried("a/m"), compressed=Compressed(request))["pipeline"] == []


def out(code: str, name: str = "a/m") -> Exclusion:
    return Exclusion(name, code, f"because of {code}")


@pytest.mark.parametrize(
    ("codes", "code", "excluded_by", "field"),
    [
        ((), "no_endpoints", [], None),
        (("off", "retired"), "no_endpoints", [], None),
        (("retired", "retired"), "model_deprecated", [], None),
        (("zdr", "off"), "privacy_restricted", ["data_policy:zdr"], "provider.zdr"),
        (
            ("data_collection", "data_collection", "zdr"),
            "privacy_restricted",
            ["data_policy:training", "data_policy:zdr"],
            "provider.data_collection",
        ),
        (("region",), "region_restricted", ["data_region"], "provider.only"),
        (("not_free",), "free_variant_ended", ["max_price"], "model"),
        (("max_price", "context"), "constraint_filtered", ["max_price", "context_length"], "provider.max_price"),
        (("no_tools",), "constraint_filtered", ["require_parameters"], "tools"),
        (("ignored", "only"), "constraint_filtered", ["allowed_providers"], "provider.ignore"),
        (("something new",), "constraint_filtered", ["something new"], "model"),
    ],
)
def test_what_left_nobody_is_told_in_the_words_of_the_contract(
    codes: tuple[str, ...], code: str, excluded_by: list[str], field: str | None
):
    found = availability([out(one) for one in codes], requested=["m"], fallbacks=["n"])
    assert (found["code"], found["excluded_by"], found["retryable"]) == (code, excluded_by, False)
    assert found["retry_after"] is None
    assert found.get("constraint", {}).get("field") == field
    assert found["affected_providers"] == (["a"] if codes else [])
    assert (found["requested_models"], found["fallback_models"]) == (["m"], ["n"])


@pytest.mark.parametrize(("standing", "code"), [("parked", "capacity_exhausted"), ("open", "temporarily_unavailable")])
def test_whoever_rests_is_worth_coming_back_for(standing: Any, code: str):
    resting = [
        seat("b/m", observation=Observation(standing, until_s=107.2)),
        seat("c/m", observation=Observation(standing, 120)),
    ]
    found = availability([out("context")], requested=["m"], resting=resting, now_s=100)
    assert (found["code"], found["retryable"], found["retry_after"]) == (code, True, 8)
    assert found["affected_providers"] == ["a", "b", "c"]
    assert "constraint" not in found
    assert availability([], requested=["m"], resting=resting, now_s=500)["retry_after"] == 1


def asking(model: str = "", *models: str) -> ChatRequest:
    return ChatRequest(messages=(Message(role="user", content="x"),), model=model, models=models or None)


def test_a_name_that_nothing_has_comes_with_near_ones():
    known = catalogue([endpoint("a/m")], [Route(name="mixtral", endpoints=("a/m",))])
    found = unknown_model(asking("mixtral", "mixtrl"), known)
    assert (found["code"], found["fallback_models"], found["retryable"]) == ("model_not_found", ["mixtral"], False)
    assert found["requested_models"] == ["mixtral", "mixtrl"]
    assert unknown_model(asking(), known)["requested_models"] == []
    assert all(len(name) <= 100 for name in unknown_model(asking("x" * 9999), known)["requested_models"])


codes = st.sampled_from(["retired", "off", "context", "zdr", "max_price", "only", "no_tools", "x"])


@given(st.lists(st.builds(out, codes, st.sampled_from(["a/m", "b/m/x", "c"])), max_size=200), st.lists(st.text()))
def test_lists_are_bounded_and_everything_is_json(excluded: list[Exclusion], requested: list[str]):
    found = msgspec.json.decode(msgspec.json.encode(availability(excluded, requested=requested)))
    assert all(len(value) <= LISTED_MAX for value in found.values() if isinstance(value, list))
