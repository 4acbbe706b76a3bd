"""Prices: decimal text in, integer pico-USD out, exactly or not at all."""

from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from gateway.cli.facts import usd_per_mtok
from gateway.config.fields import PRICE_MAX_IN_USD, TOKENS_PER_MTOK, in_pico_usd
from gateway.config.load import load


def price(text: str, tmp_path: Path):
    path = tmp_path / "p.yaml"
    row = f"{{m: {{price: {{input: {text}}}}}}}"
    path.write_text(f"providers: {{a: {{dialect: openai, base_url: http://h/v1, models: {row}}}}}\n")
    return load(path, {}).endpoints["a/m"].price.input_in_pusd


@pytest.mark.parametrize(
    ("text", "pico_usd"),
    [
        ("2.00", 2_000_000),
        ("2", 2_000_000),
        ("0", 0),
        ("0.0", 0),
        ("0.1", 100_000),
        ("0.54", 540_000),
        ("0.000001", 1),
        ("1e-6", 1),
        ("1000000", 10**12),
        ("2.000000000000000000", 2_000_000),
    ],
)
def test_a_price_is_kept_exactly(text: str, pico_usd: int, tmp_path: Path):
    assert price(text, tmp_path) == pico_usd


def test_an_unknown_price_is_not_zero(tmp_path: Path):
    assert price("", tmp_path) is None


@given(st.integers(0, PRICE_MAX_IN_USD * TOKENS_PER_MTOK))
def test_every_whole_number_of_pico_usd_has_a_price_and_reads_back(pico_usd: int):
    text = f"{pico_usd // TOKENS_PER_MTOK}.{pico_usd % TOKENS_PER_MTOK:06d}"
    assert in_pico_usd(Decimal(text), TOKENS_PER_MTOK) == pico_usd
    assert Decimal(usd_per_mtok(pico_usd)) * TOKENS_PER_MTOK == pico_usd


@given(st.decimals(min_value=0, max_value=PRICE_MAX_IN_USD, allow_nan=False, allow_infinity=False))
def test_a_price_is_exact_or_refused(amount: Decimal):
    exact = Fraction(amount) * 10**6
    if exact.denominator == 1:
        assert in_pico_usd(amount, TOKENS_PER_MTOK) == exact
    else:
        with pytest.raises(PydanticCustomError, match="finer than"):
            in_pico_usd(amount, TOKENS_PER_MTOK)


@given(st.integers(1, 10**9), st.integers(7, 60))
def test_digits_beyond_a_pico_usd_are_never_rounded_away(digits: int, places: int):
    assume(digits % 10)
    with pytest.raises(PydanticCustomError, match="finer than"):
        in_pico_usd(Decimal(digits).scaleb(-places), TOKENS_PER_MTOK)


@given(st.booleans() | st.none() | st.text() | st.floats() | st.lists(st.integers()))
def test_anything_but_a_number_is_refused(value: object):
    with pytest.raises(PydanticCustomError, match="not a price"):
        in_pico_usd(value, TOKENS_PER_MTOK)
