import pytest

from gateway.errors import RestingError
from gateway.health import kind_of
from gateway.health.kinds import COUNTED
from providers import errors

KINDS = [
    (errors.ConnectError, "connect", "midstream"),
    (errors.ResetError, "server", "midstream"),
    (errors.OverloadedError, "overload", "midstream"),
    (errors.RateLimitedError, "rate_limit", "rate_limit"),
    (errors.ServerError, "server", "midstream"),
    (errors.GarbledError, "server", "midstream"),
    (errors.FirstTokenTimeoutError, "timeout", "midstream"),
    (errors.StalledError, "stall", "midstream"),
    (errors.TruncatedError, "server", "midstream"),
    (errors.CredentialsError, "auth", "auth"),
    (errors.UnknownModelError, "auth", "auth"),
    (errors.RegionError, "geo", "geo"),
    (errors.ContextLengthError, "context", "context"),
    (errors.UnsupportedError, "unsupported", "unsupported"),
    (errors.ContentPolicyError, "client", "client"),
    (errors.BadRequestError, "client", "client"),
    (errors.ProviderError, "server", "midstream"),
]


@pytest.mark.parametrize(("error", "before", "after"), KINDS)
def test_every_error_has_a_kind_before_and_after_content(error, before, after):
    assert kind_of(error("it broke"), committed=False) == before
    assert kind_of(error("it broke"), committed=True) == after


def test_an_answer_left_elsewhere_is_the_providers_failure():
    assert kind_of(errors.AnswerElsewhereError("https://example.test/"), committed=False) == "server"


def test_our_own_refusals_are_ours():
    assert kind_of(RestingError("nobody"), committed=False) == "gateway"
    assert kind_of(RestingError("nobody"), committed=True) == "gateway"


@pytest.mark.parametrize("code", ["local_queue_full", "local_queue_deadline"])
def test_a_full_local_queue_is_no_failure_and_a_provider_that_says_the_same_is(code):
    assert kind_of(errors.OverloadedError("full", upstream_code=code), committed=False, local=True) == "full"
    assert kind_of(errors.OverloadedError("full", upstream_code=code), committed=False) == "overload"
    assert kind_of(errors.OverloadedError("it loads"), committed=False, local=True) == "overload"


def test_no_class_of_the_tree_is_forgotten():
    def below(parent):
        return {parent}.union(*map(below, parent.__subclasses__()))

    ours = {one for one in below(errors.ProviderError) if one.__module__ == "providers.errors"}
    assert ours == {error for error, _, _ in KINDS} | {errors.AnswerElsewhereError}


def test_only_the_endpoints_own_failures_count():
    assert {"connect", "overload", "server", "timeout", "stall", "midstream"} == COUNTED
