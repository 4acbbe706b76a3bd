import pytest

from gateway.retries import (
    ALONE_WAIT_MAX_S,
    PAUSE_MAX_S,
    PAUSE_MIN_S,
    WAITED_OUT_MAX_S,
    may_do_better,
    pause_before_again,
)
from providers.errors import (
    BadRequestError,
    ConnectError,
    ContentPolicyError,
    ContextLengthError,
    CredentialsError,
    FirstTokenTimeoutError,
    GarbledError,
    OverloadedError,
    RateLimitedError,
    ResetError,
    ServerError,
    StalledError,
    TruncatedError,
    UnknownModelError,
)
from tests.fakes.catalogues import endpoint


def pause(error, *, explicit=False, alone=False, draw=0.5):
    return pause_before_again(error, explicit=explicit, alone=alone, draw=draw)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("explicit", [True, False])
@pytest.mark.parametrize(
    "hiccup", [ServerError("x", upstream_status=500), ServerError("x", upstream_status=502), ResetError("gone")]
)
def test_a_hiccup_is_tried_again_a_moment_later(hiccup, explicit, alone):
    pauses = [pause(hiccup, explicit=explicit, alone=alone, draw=draw) for draw in (0.0, 0.5, 1.0)]
    assert pauses == pytest.approx([PAUSE_MIN_S, (PAUSE_MIN_S + PAUSE_MAX_S) / 2, PAUSE_MAX_S])


@pytest.mark.parametrize(
    "error",
    [
        ServerError("x", upstream_status=504),
        ServerError("no status at all"),
        OverloadedError("x", upstream_status=503),
        ConnectError("x"),
        TruncatedError("x"),
        GarbledError("x"),
        FirstTokenTimeoutError("x"),
        StalledError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_for_anything_else_the_next_one_is_better(error):
    assert pause(error) is None
    assert pause(error, explicit=True) is None


@pytest.mark.parametrize(
    ("error", "expected_s"),
    [
        (OverloadedError("x", upstream_status=503), 0.25),
        (OverloadedError("x", upstream_status=503, retry_after_s=4.0), 4.0),
        (OverloadedError("x", upstream_status=503, retry_after_s=0.01), 0.25),
        (OverloadedError("x", upstream_status=503, retry_after_s=ALONE_WAIT_MAX_S + 0.1), None),
        (ConnectError("x"), 0.25),
        (ServerError("x", upstream_status=504), 0.25),
        (TruncatedError("x"), 0.25),
        (GarbledError("x"), None),
        (FirstTokenTimeoutError("x"), None),
        (StalledError("x"), None),
        (CredentialsError("x"), None),
        (UnknownModelError("x"), None),
        (BadRequestError("x"), None),
        (ContentPolicyError("x"), None),
        (ContextLengthError("x"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_who_is_alone_is_asked_again_after_what_may_pass(error, expected_s):
    assert pause(error, alone=True) == (None if expected_s is None else pytest.approx(expected_s))


@pytest.mark.parametrize(
    ("wait_s", "chosen", "explicit", "alone"),
    [
        (None, None, None, None),
        (0.0, None, 0.0, 0.0),
        (WAITED_OUT_MAX_S, None, WAITED_OUT_MAX_S, WAITED_OUT_MAX_S),
        (WAITED_OUT_MAX_S + 0.1, None, None, WAITED_OUT_MAX_S + 0.1),
        (ALONE_WAIT_MAX_S, None, None, ALONE_WAIT_MAX_S),
        (ALONE_WAIT_MAX_S + 0.1, None, None, None),
    ],
)
def test_a_rate_limit_is_waited_out_as_long_as_it_is_worth(wait_s, chosen, explicit, alone):
    error = RateLimitedError("slow down", retry_after_s=wait_s)
    assert pause(error) == chosen
    assert pause(error, explicit=True) == explicit
    assert pause(error, alone=True) == alone
    assert pause(error, explicit=True, alone=True) == alone


def test_only_a_larger_context_can_do_better_with_a_prompt_that_is_too_long():
    small, large, unknown = (
        endpoint(f"{name}/x", context_tokens=size) for name, size in zip("slu", (10, 20, None), strict=True)
    )
    too_long = ContextLengthError("too long")
    assert may_do_better(too_long, small, large)
    assert not may_do_better(too_long, large, small)
    assert not may_do_better(too_long, small, small)
    assert may_do_better(too_long, small, unknown)
    assert may_do_better(too_long, unknown, small)
    assert may_do_better(ServerError("x"), large, small)
