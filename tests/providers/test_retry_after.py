import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from providers.retry_after import RETRY_AFTER_MAX_S, parse_retry_after

NOW_UNIX_S = 1_790_000_000.0  # Mon, 21 Sep 2026 14:13:20 GMT
READ = [
    ({"retry-after": "7"}, 7),
    ({"retry-after": "0"}, 0),
    ({"retry-after": "1.5"}, 1.5),
    ({"retry-after": "-3"}, 0),
    ({"retry-after": "99999"}, RETRY_AFTER_MAX_S),
    ({"retry-after-ms": "250"}, 0.25),
    ({"retry-after-ms": "250", "retry-after": "9"}, 0.25),
    ({"retry-after-ms": "soon", "retry-after": "9"}, 9),
    ({"retry-after": "Mon, 21 Sep 2026 14:13:50 GMT"}, 30),
    ({"retry-after": "Mon, 21 Sep 2026 14:13:10 GMT"}, 0),
    ({"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, RETRY_AFTER_MAX_S),
    ({"x-ratelimit-reset": "12"}, 12),
    ({"x-ratelimit-reset": "1790000042"}, 42),
    ({"x-ratelimit-reset": "1790000042500"}, 42.5),
    ({"x-ratelimit-reset-requests": "1m30.5s"}, 90.5),
    ({"x-ratelimit-reset-tokens": "250ms"}, 0.25),
    ({"x-ratelimit-reset-tokens": "1h"}, RETRY_AFTER_MAX_S),
    ({"x-ratelimit-reset-requests": "nope", "x-ratelimit-reset-tokens": "3s"}, 3),
]
NOT_READ = [
    "",
    " ",
    "soon",
    "nan",
    "inf",
    "1 minute",
    "5m5",
    "s",
    "1.2.3s",
    "\u00b2",
    "9" * 400,
    "x" * 30_000,
    "1" * 30_000 + "q",
]


@pytest.mark.parametrize(("headers", "expected"), READ, ids=[str(headers) for headers, _ in READ])
def test_every_spelling_is_read(headers, expected):
    assert parse_retry_after(headers, NOW_UNIX_S) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["retry-after", "retry-after-ms", "x-ratelimit-reset", "x-ratelimit-reset-tokens"])
@pytest.mark.parametrize("text", NOT_READ, ids=[repr(text[:12]) for text in NOT_READ])
def test_what_is_no_time_is_not_read(name, text):
    started_s = time.process_time()
    assert parse_retry_after({name: text}, NOW_UNIX_S) is None
    assert time.process_time() - started_s < 1


def test_nothing_said_is_nothing_known():
    assert parse_retry_after({}, NOW_UNIX_S) is None


@given(st.text(max_size=40), st.sampled_from(["retry-after", "retry-after-ms", "x-ratelimit-reset"]))
@settings(max_examples=300, deadline=None)
def test_any_text_gives_a_bounded_wait_or_none(text, name):
    wait_s = parse_retry_after({name: text}, NOW_UNIX_S)
    assert wait_s is None or 0 <= wait_s <= RETRY_AFTER_MAX_S
