import pytest
from hypothesis import given
from hypothesis import strategies as st

from providers.rate_limits import Allowance, RateLimits, read_rate_limits

NOW = 1_800_000_000.0
SAID = {
    "OpenAI": (
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "59",
            "x-ratelimit-reset-requests": "1s",
            "x-ratelimit-limit-tokens": "150000",
            "x-ratelimit-remaining-tokens": "0",
            "x-ratelimit-reset-tokens": "6m0.5s",
        },
        RateLimits(Allowance(60, 59, 1.0), Allowance(150000, 0, 360.5)),
    ),
    "Mistral": (
        {
            "x-ratelimit-limit-req-minute": "30",
            "x-ratelimit-remaining-req-minute": "29",
            "x-ratelimit-limit-tokens-minute": "500000",
            "x-ratelimit-remaining-tokens-minute": "499000",
        },
        RateLimits(Allowance(30, 29, 60.0), Allowance(500000, 499000, 60.0)),
    ),
    "Anthropic": (
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "49",
            "anthropic-ratelimit-requests-reset": "2027-01-15T08:00:30Z",
        },
        RateLimits(Allowance(50, 49, 30.0), Allowance()),
    ),
    "OpenRouter": (
        {"x-ratelimit-limit": "20", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "1800000010000"},
        RateLimits(Allowance(20, 0, 10.0), Allowance()),
    ),
    "nobody": ({"content-type": "application/json"}, RateLimits()),
    "nonsense": ({"x-ratelimit-limit": "many", "x-ratelimit-remaining": "-1"}, RateLimits()),
}


@pytest.mark.parametrize("vendor", SAID)
def test_every_spelling_is_read(vendor):
    headers, expected = SAID[vendor]
    assert read_rate_limits(headers, NOW) == expected


def test_nothing_left_is_exhausted():
    assert Allowance(20, 0).exhausted
    assert not Allowance(20, 1).exhausted
    assert not Allowance().exhausted


@given(st.dictionaries(st.sampled_from(sorted({name for headers, _ in SAID.values() for name in headers})), st.text()))
def test_no_header_breaks_the_reading(headers):
    limits = read_rate_limits(headers, NOW)
    for allowance in (limits.requests, limits.tokens):
        assert allowance.remaining is None or allowance.remaining >= 0
