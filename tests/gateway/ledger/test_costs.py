"""What an Attempt costs is exact, and says by whose word."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ledger.costs import COST_MAX_IN_NUSD, Ending, read_tariff, recovered, settlement_of, tariff_of
from gateway.ledger.entry import TAGS_MAX, TEXT_MAX, Entry, Intent, Settlement, clipped, kept_tags, row_of
from gateway.state.entries import ENTRY_COLUMNS
from providers.base import Price, PriceOverride
from providers.messages import Usage

PRICE = Price(200_000, 600_000)
TARIFF = tariff_of("p/m", PRICE, ())
FREE = tariff_of("local/m", Price(0, 0), ())
UNKNOWN = tariff_of("p/x", None, ())
INTENT = Intent(
    "gen-1/1", 1_700_000_000_000_000, "k", "r", "m", "p/m", "p", "chat", True, TARIFF.snapshot.price_id, 1000
)
COUNTED = Usage(input_tokens=1200, output_tokens=300)
GUESSED = {"prompt_tokens": 1000, "output_tokens": 40}

figures = st.integers(0, 10**9)
tokens = st.integers(0, 2_000_000)


def end(**facts) -> Ending:
    return Ending(**({"unix_us": INTENT.unix_us + 5, "outcome": "ok"} | facts))


def sources(settled: Settlement) -> tuple[str, str, int | None]:
    return settled.usage_source, settled.cost_source, settled.cost_in_nusd


def test_the_providers_own_cost_counts_more_than_its_tokens_times_our_price():
    said = Usage(input_tokens=1200, output_tokens=300, cost_in_nusd=7)
    assert sources(settlement_of(INTENT.unix_us, end(usage=said), TARIFF)) == ("provider", "provider", 7)


def test_the_providers_tokens_count_more_than_our_estimate():
    settled = settlement_of(INTENT.unix_us, end(usage=COUNTED, **GUESSED), TARIFF)
    assert sources(settled) == ("provider", "price", 1200 * 200 + 300 * 600)


def test_an_answer_that_nobody_counted_is_estimated_and_says_so():
    settled = settlement_of(INTENT.unix_us, end(outcome="cancelled", code="cancelled", **GUESSED), TARIFF)
    assert sources(settled) == ("estimate", "estimate", 1000 * 200 + 40 * 600)


def test_what_a_provider_leaves_out_of_its_count_is_estimated():
    settled = settlement_of(INTENT.unix_us, end(usage=Usage(input_tokens=1200), **GUESSED), TARIFF)
    assert sources(settled) == ("estimate", "estimate", 1200 * 200 + 40 * 600)


def test_a_refused_attempt_costs_nothing_even_where_no_price_is_known():
    for tariff in (TARIFF, UNKNOWN):
        settled = settlement_of(INTENT.unix_us, end(outcome="failed", code="overloaded", refused=True), tariff)
        assert sources(settled) == ("none", "none", 0)
        assert settled.input_tokens is None


def test_a_refused_attempt_that_was_billed_all_the_same_is_in_the_books():
    settled = settlement_of(INTENT.unix_us, end(outcome="failed", refused=True, usage=COUNTED), TARIFF)
    assert sources(settled) == ("provider", "price", 420_000)


def test_without_a_price_the_cost_is_unknown_which_is_not_zero():
    assert sources(settlement_of(INTENT.unix_us, end(usage=COUNTED), UNKNOWN)) == ("provider", "unknown", None)
    assert sources(settlement_of(INTENT.unix_us, end(usage=COUNTED), FREE)) == ("provider", "price", 0)


@pytest.mark.parametrize("count", [-1, 10**9 + 1, 10**30])
def test_a_count_that_cannot_be_is_none(count):
    absurd = Usage(input_tokens=count, output_tokens=300, reasoning_tokens=count, cached_input_tokens=count)
    settled = settlement_of(INTENT.unix_us, end(usage=absurd, **GUESSED), TARIFF)
    assert (settled.input_tokens, settled.reasoning_tokens, settled.cached_tokens) == (1000, None, None)
    assert settled.usage_source == "estimate"


@pytest.mark.parametrize("cost", [-1, COST_MAX_IN_NUSD + 1])
def test_a_cost_that_cannot_be_is_not_believed(cost):
    said = Usage(input_tokens=1200, output_tokens=300, cost_in_nusd=cost)
    assert sources(settlement_of(INTENT.unix_us, end(usage=said), TARIFF)) == ("provider", "price", 420_000)


def test_an_attempt_that_was_cut_by_our_own_end_is_estimated_from_how_far_it_was():
    settled = recovered(INTENT, 512, TARIFF, unix_us=9)
    assert sources(settled) == ("recovered", "recovered", 1000 * 200 + 512 * 600)
    assert (settled.outcome, settled.code, settled.ended_unix_us) == ("failed", "gateway_killed", 9)
    assert recovered(INTENT, 512, None, unix_us=9).cost_source == "unknown"


@given(price=st.tuples(figures, figures, figures, figures, figures), counts=st.tuples(tokens, tokens, tokens, tokens))
def test_every_row_is_rounded_once_half_to_even_and_never_more(price, counts):
    read_in, output, read, written = counts
    read = min(read, read_in)
    written = min(written, read_in - read)
    tariff = tariff_of("p/m", Price(*price), ())
    usage = Usage(input_tokens=read_in, output_tokens=output, cached_input_tokens=read, cache_write_tokens=written)
    exact = Fraction(
        (read_in - read - written) * price[0] + output * price[1] + read * price[2] + written * price[3] + price[4],
        1000,
    )
    settled = settlement_of(INTENT.unix_us, end(usage=usage), tariff)
    if exact > COST_MAX_IN_NUSD:
        assert settled.cost_in_nusd is None
    else:
        assert settled.cost_in_nusd == round(exact)  # Fractions round half to even


@given(
    price=st.builds(Price, *[st.none() | figures] * 6),
    overrides=st.lists(
        st.builds(
            PriceOverride,
            price=st.builds(Price, *[st.none() | figures] * 6),
            min_prompt_tokens=st.none() | tokens,
            from_day=st.none() | st.dates(),
        ),
        max_size=3,
    ),
)
def test_a_snapshot_says_all_that_a_tariff_is_and_its_id_follows_from_it(price, overrides):
    tariff = tariff_of("p/m", price, overrides)
    again = read_tariff(tariff.snapshot)
    assert (again.price, again.overrides) == (tariff.price, tariff.overrides)
    assert tariff_of("p/m", price, overrides).snapshot == tariff.snapshot
    assert tariff_of("p/n", price, overrides).snapshot.price_id != tariff.snapshot.price_id


def test_intent_and_settlement_together_are_a_row():
    settled = settlement_of(INTENT.unix_us, end(usage=COUNTED, ttft_ms=7, duration_ms=9, upstream_id="u-1"), TARIFF)
    entry = Entry(*row_of(INTENT, settled))
    assert Entry.__struct_fields__ == ENTRY_COLUMNS
    given = Intent.__struct_fields__
    assert ENTRY_COLUMNS[: len(given)] == given
    for name in given[:-1]:
        assert getattr(entry, name) == getattr(INTENT, name)
    for name in ENTRY_COLUMNS[len(given) :]:
        assert getattr(entry, name) == getattr(settled, name)


def test_texts_of_clients_are_cut():
    assert (clipped(None), clipped("a" * 1000)) == ("", "a" * TEXT_MAX)
    assert kept_tags(["b", "a", "", "b", "c" * 1000]) == ("b", "a", "c" * TEXT_MAX)
    assert len(kept_tags(map(str, range(1000)))) == TAGS_MAX
