"""Costs: exact to the nano-USD, the same as decimal arithmetic says, and unknown where a figure is."""

from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, localcontext

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.base import Price, PriceOverride
from providers.messages import Usage
from providers.pricing import cost_in_nusd, price_in_force

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PRICE = Price(input_in_pusd=2_000_000, output_in_pusd=6_000_000, cache_read_in_pusd=200_000)

PICO_USD = st.none() | st.integers(0, 10**12)
PRICES = st.builds(Price, PICO_USD, PICO_USD, PICO_USD, PICO_USD, PICO_USD, PICO_USD)
TOKENS = st.none() | st.integers(0, 2_000_000)
USAGES = st.builds(
    Usage, input_tokens=TOKENS, output_tokens=TOKENS, cached_input_tokens=TOKENS, cache_write_tokens=TOKENS
)
CLOCKS = st.builds("{:02}:{:02}".format, st.integers(0, 23), st.integers(0, 59))
DAYS = st.dates(date(2026, 1, 1), date(2026, 12, 31))
TIMES = st.datetimes(datetime(2026, 1, 1), datetime(2026, 12, 31), timezones=st.just(UTC))  # noqa: DTZ001  # hypothesis asks for naive bounds


@st.composite
def overrides(draw: st.DrawFn) -> PriceOverride:
    start, end = draw(st.just((None, None)) | st.tuples(CLOCKS, CLOCKS))
    return PriceOverride(
        price=draw(PRICES),
        min_prompt_tokens=draw(st.none() | st.integers(1, 500_000)),
        utc_start=start,
        utc_end=end,
        from_day=draw(st.none() | DAYS),
        until_day=draw(st.none() | DAYS),
    )


def test_the_figures_of_the_shipped_8x22b_add_up():
    usage = Usage(input_tokens=1000, output_tokens=500, cached_input_tokens=400)
    assert cost_in_nusd(PRICE, (), usage, NOON) == 600 * 2_000 + 400 * 200 + 500 * 6_000


@pytest.mark.parametrize(
    ("pico_usd", "nano_usd"), [(499, 0), (500, 0), (501, 1), (1499, 1), (1500, 2), (2500, 2), (2501, 3), (3500, 4)]
)
def test_an_answer_is_rounded_once_half_to_even(pico_usd: int, nano_usd: int):
    price = Price(input_in_pusd=1, output_in_pusd=0)
    assert cost_in_nusd(price, (), Usage(input_tokens=pico_usd, output_tokens=7), NOON) == nano_usd


@pytest.mark.parametrize(
    ("price", "usage"),
    [
        (None, Usage(input_tokens=1, output_tokens=1)),
        (Price(), Usage(input_tokens=1, output_tokens=1)),
        (Price(input_in_pusd=5), Usage(input_tokens=1, output_tokens=1)),
        (PRICE, Usage(input_tokens=1)),
        (PRICE, Usage(output_tokens=1)),
        (PRICE, Usage(input_tokens=-1, output_tokens=1)),
        (PRICE, Usage(input_tokens=10**30, output_tokens=1)),
    ],
)
def test_what_nobody_knows_has_no_cost(price: Price | None, usage: Usage):
    assert cost_in_nusd(price, (), usage, NOON) is None


@pytest.mark.parametrize(
    ("price", "usage"),
    [
        (Price(input_in_pusd=0, output_in_pusd=0), Usage()),
        (Price(input_in_pusd=0, output_in_pusd=0), Usage(input_tokens=10, cached_input_tokens=5)),
        (Price(), Usage(input_tokens=0, output_tokens=0)),
    ],
)
def test_what_is_free_costs_nothing_however_little_is_known(price: Price, usage: Usage):
    assert cost_in_nusd(price, (), usage, NOON) == 0


def test_a_cached_token_without_a_price_of_its_own_costs_what_any_other_does():
    price = Price(input_in_pusd=1_000_000, output_in_pusd=0)
    usage = Usage(input_tokens=100, output_tokens=0, cached_input_tokens=60, cache_write_tokens=40)
    assert cost_in_nusd(price, (), usage, NOON) == 100 * 1_000


def test_more_cached_tokens_than_the_prompt_has_are_not_billed_for_less_than_nothing():
    usage = Usage(input_tokens=10, output_tokens=0, cached_input_tokens=10**6, cache_write_tokens=10**6)
    assert cost_in_nusd(PRICE, (), usage, NOON) == 10 * 200


def test_requests_and_images_may_cost_too():
    price = Price(input_in_pusd=0, output_in_pusd=0, request_in_pusd=5_000_000, image_in_pusd=2_000_000)
    assert cost_in_nusd(price, (), Usage(), NOON, images=3) == 5_000 + 3 * 2_000


@pytest.mark.parametrize(("prompt_tokens", "input_in_pusd"), [(None, 1), (200_000, 1), (200_001, 2), (10**6, 2)])
def test_a_long_prompt_has_the_long_price_for_all_of_it(prompt_tokens: int | None, input_in_pusd: int):
    long = PriceOverride(price=Price(input_in_pusd=2), min_prompt_tokens=200_001)
    base = Price(input_in_pusd=1, output_in_pusd=9)
    prices = price_in_force(base, (long,), prompt_tokens=prompt_tokens, now_utc=NOON)
    assert prices == Price(input_in_pusd=input_in_pusd, output_in_pusd=9)


@pytest.mark.parametrize(
    ("start", "end", "clock", "holds"),
    [
        ("16:30", "18:00", "16:29", False),
        ("16:30", "18:00", "16:30", True),
        ("16:30", "18:00", "17:59", True),
        ("16:30", "18:00", "18:00", False),
        ("16:30", "00:30", "23:59", True),
        ("16:30", "00:30", "00:00", True),
        ("16:30", "00:30", "00:30", False),
        ("16:30", "00:30", "12:00", False),
        ("08:00", "08:00", "07:59", True),
    ],
)
def test_a_time_of_day_is_a_span_that_may_lie_over_midnight(start: str, end: str, clock: str, holds: bool):
    hour, minute = map(int, clock.split(":"))
    now = NOON.replace(hour=hour, minute=minute, second=59)
    night = PriceOverride(price=Price(input_in_pusd=1), utc_start=start, utc_end=end)
    price = price_in_force(Price(input_in_pusd=4), (night,), prompt_tokens=1, now_utc=now)
    assert price.input_in_pusd == (1 if holds else 4)


def test_dates_include_both_of_their_days():
    week = PriceOverride(price=Price(input_in_pusd=1), from_day=date(2026, 11, 2), until_day=date(2026, 11, 8))
    cheap = [
        day
        for day in (date(2026, 11, 1) + timedelta(days=number) for number in range(10))
        if price_in_force(
            Price(input_in_pusd=4),
            (week,),
            prompt_tokens=1,
            now_utc=datetime(day.year, day.month, day.day, 23, 59, tzinfo=UTC),
        ).input_in_pusd
        == 1
    ]
    assert (cheap[0], cheap[-1], len(cheap)) == (date(2026, 11, 2), date(2026, 11, 8), 7)


def test_of_several_overrides_the_last_that_names_a_figure_decides_it():
    first = PriceOverride(price=Price(input_in_pusd=2, output_in_pusd=20), min_prompt_tokens=10)
    second = PriceOverride(price=Price(input_in_pusd=3), min_prompt_tokens=100)
    base = Price(input_in_pusd=1, output_in_pusd=10, request_in_pusd=7)
    prices = price_in_force(base, (first, second), prompt_tokens=100, now_utc=NOON)
    assert prices == Price(input_in_pusd=3, output_in_pusd=20, request_in_pusd=7)


@settings(deadline=None)
@given(PRICES, st.lists(overrides(), max_size=3), USAGES, TIMES, st.integers(0, 20))
def test_every_cost_is_what_decimal_arithmetic_says(
    price: Price, others: list[PriceOverride], usage: Usage, now_utc: datetime, images: int
):
    assert cost_in_nusd(price, others, usage, now_utc, images=images) == oracle(price, others, usage, now_utc, images)


def oracle(price: Price, others: list[PriceOverride], usage: Usage, now: datetime, images: int) -> int | None:
    """The same rules told another way: a table of figures by name, minutes of the day, and Decimal dollars."""
    figures = {name: getattr(price, name) for name in price.__struct_fields__}
    minute = now.hour * 60 + now.minute
    for other in others:
        spans: set[int] = set(range(1440))
        if other.utc_start is not None:
            start, end = (int(text[:2]) * 60 + int(text[3:]) for text in (other.utc_start, other.utc_end))
            spans = {(start + step) % 1440 for step in range((end - start) % 1440 or 1440)}
        too_short = other.min_prompt_tokens is not None and (usage.input_tokens or 0) < other.min_prompt_tokens
        too_early = other.from_day is not None and now.date() < other.from_day
        too_late = other.until_day is not None and now.date() > other.until_day
        if minute in spans and not (too_short or too_early or too_late):
            named = {name: getattr(other.price, name) for name in other.price.__struct_fields__}
            figures |= {name: figure for name, figure in named.items() if figure is not None}
    prompt = usage.input_tokens
    read = min(usage.cached_input_tokens or 0, prompt or 0)
    written = min(usage.cache_write_tokens or 0, (prompt or 0) - read)
    asked = figures["input_in_pusd"]
    bill = [
        (None if prompt is None else prompt - read - written, asked),
        (read, asked if figures["cache_read_in_pusd"] is None else figures["cache_read_in_pusd"]),
        (written, asked if figures["cache_write_in_pusd"] is None else figures["cache_write_in_pusd"]),
        (usage.output_tokens, figures["output_in_pusd"]),
        (1, figures["request_in_pusd"] or 0),
        (images, figures["image_in_pusd"] or 0),
    ]
    with localcontext() as context:
        context.prec = 60
        total = Decimal(0)
        for count, figure in bill:
            if 0 in (count, figure):
                continue
            if count is None or figure is None:
                return None
            total += Decimal(figure).scaleb(-12) * count
        return int(total.scaleb(9).quantize(Decimal(1), rounding=ROUND_HALF_EVEN))
