"""Our arithmetic against genai-prices: an independent price table with arithmetic of its own."""

import json
from datetime import UTC, date, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path

import genai_prices
import pytest
from genai_prices.data import providers as JUDGE  # noqa: N812  # a table, not a class
from genai_prices.types import StartDateConstraint, TieredPrices, TimeOfDateConstraint
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.load import load
from gateway.config.locations import PACKAGED_CONFIG
from gateway.imports.litellm_prices import from_price_list
from gateway.imports.yaml_text import yaml_text
from providers.base import Price, PriceOverride
from providers.messages import Usage
from providers.pricing import cost_in_nusd
from tests.gateway.imports.price_list import JUDGED, PRICE_LIST

NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
KEYS = {
    "input_mtok": "input_in_pusd",
    "output_mtok": "output_in_pusd",
    "cache_read_mtok": "cache_read_in_pusd",
    "cache_write_mtok": "cache_write_in_pusd",
}
SHIPPED = {
    "openrouter/mistralai/mixtral-8x22b-instruct": ("openrouter", "mistralai/mixtral-8x22b-instruct"),
    "bedrock/mistral.mixtral-8x7b-instruct-v0:1": ("aws", "mistral.mixtral-8x7b-instruct-v0:1"),
    "bedrock-us-west-2/mistral.mixtral-8x7b-instruct-v0:1": ("aws", "mistral.mixtral-8x7b-instruct-v0:1"),
}
"""Shipped Endpoints on whose figures the judge agrees. It has an old price for 8x7B on OpenRouter (kept as a claim) and
one price for all regions of AWS."""


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    prompt = draw(st.integers(0, 400_000))
    read = draw(st.integers(0, prompt))
    written = draw(st.integers(0, prompt - read))
    return Usage(
        input_tokens=prompt,
        output_tokens=draw(st.integers(0, 100_000)),
        cached_input_tokens=read,
        cache_write_tokens=written,
    )


def judged(usage: Usage) -> genai_prices.Usage:
    return genai_prices.Usage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens,
        cache_write_tokens=usage.cache_write_tokens,
    )


def in_nusd(usd: Decimal) -> int:
    return int(usd.scaleb(9).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    path = tmp_path_factory.mktemp("imported") / "providers.yaml"
    draft = from_price_list(json.dumps(PRICE_LIST).encode(), as_of="2026-11-22")
    path.write_text(yaml_text(draft))
    return load(path, {})


@pytest.fixture(scope="module")
def shipped():
    return load(Path(PACKAGED_CONFIG), {})


@given(data=st.data())
@settings(deadline=None, max_examples=200)
def test_imported_endpoints_cost_what_the_judge_says(imported, data):
    endpoint, (provider, model) = data.draw(st.sampled_from(sorted(JUDGED.items())))
    usage = data.draw(usages())
    verdict = genai_prices.calc_price(
        judged(usage), model, provider_id=provider, genai_request_timestamp=NOW
    ).total_price
    price = imported.endpoints[endpoint].price
    assert cost_in_nusd(price, imported.price_overrides.get(endpoint, ()), usage, NOW) == in_nusd(verdict)


@given(data=st.data())
@settings(deadline=None)
def test_shipped_endpoints_cost_what_the_judge_says(shipped, data):
    endpoint, (provider, model) = data.draw(st.sampled_from(sorted(SHIPPED.items())))
    usage = data.draw(usages())
    verdict = genai_prices.calc_price(
        judged(usage), model, provider_id=provider, genai_request_timestamp=NOW
    ).total_price
    assert cost_in_nusd(shipped.endpoints[endpoint].price, (), usage, NOW) == in_nusd(verdict)


def pico(mtok: Decimal) -> int | None:
    scaled = mtok * 10**6
    return int(scaled) if scaled == int(scaled) else None


def translated(model) -> tuple[Price, list[PriceOverride]] | None:
    """A model of the judge's table with its tiers, dates and times of day in our words; None where we have none."""
    versions = model.prices if isinstance(model.prices, list) else [model.prices]
    price, overrides, seen = Price(), [], set()
    for version in versions:
        prices = getattr(version, "prices", version)
        figures = {key: value for key, value in vars(prices).items() if value is not None and not key.startswith("_")}
        if not seen <= set(figures) or not set(figures) <= set(KEYS):
            return None  # a version there replaces all figures of the one before, here only those that it names
        seen = set(figures)
        base = {KEYS[key]: pico(getattr(value, "base", value)) for key, value in figures.items()}
        when = condition(getattr(version, "constraint", None))
        if None in base.values() or when is None:
            return None
        overrides += [PriceOverride(price=Price(**base), **when)] if when else []
        price = price if when else Price(**base)
        tiers = {key: value for key, value in figures.items() if isinstance(value, TieredPrices)}
        if tiers and (when or len(versions) > 1):
            return None
        for start in sorted({tier.start for value in tiers.values() for tier in value.tiers}):
            dear = {KEYS[key]: pico(t.price) for key, value in tiers.items() for t in value.tiers if t.start == start}
            overrides.append(PriceOverride(price=Price(**dear), min_prompt_tokens=start + 1))
    return price, overrides


def condition(constraint) -> dict | None:
    if constraint is None:
        return {}
    if isinstance(constraint, StartDateConstraint):
        return {"from_day": constraint.start_date}
    assert isinstance(constraint, TimeOfDateConstraint)
    start, end = constraint.start_time, constraint.end_time
    if start.second or end.second or start == end:
        return None
    return {"utc_start": f"{start:%H:%M}", "utc_end": f"{end:%H:%M}"}


TABLE = [(provider, model, ours) for provider in JUDGE for model in provider.models if (ours := translated(model))]
TIMES = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis asks for naive bounds


def test_the_judge_knows_hundreds_of_models_in_our_words_with_every_kind_of_override():
    kinds = [override for _, _, (_, overrides) in TABLE for override in overrides]
    assert len(TABLE) > 300
    assert any(override.min_prompt_tokens for override in kinds)
    assert any(override.from_day for override in kinds)


@given(data=st.data())
@settings(deadline=None, max_examples=300)
def test_any_model_of_the_judges_table_costs_the_same_here_at_any_time(data):
    provider, model, (price, overrides) = data.draw(st.sampled_from(TABLE))
    usage, now = data.draw(usages()), data.draw(TIMES)
    verdict = model.calc_price(judged(usage), provider, genai_request_timestamp=now).total_price
    missing = (price.input_in_pusd is None and usage.input_tokens) or (
        price.output_in_pusd is None and usage.output_tokens
    )
    expected = None if missing else in_nusd(verdict)  # a price that is not in its table counts as nothing there
    assert cost_in_nusd(price, overrides, usage, now) == expected


def test_the_one_shipped_price_that_the_judge_dates_is_dated_alike():
    before, after = (
        genai_prices.calc_price(
            genai_prices.Usage(input_tokens=1_000_000, output_tokens=0),
            "mistralai/mixtral-8x22b-instruct",
            provider_id="openrouter",
            genai_request_timestamp=datetime(day.year, day.month, day.day, tzinfo=UTC),
        ).total_price
        for day in (date(2026, 10, 18), date(2026, 10, 19))
    )
    assert (before, after) == (Decimal("0.9"), Decimal(2))
