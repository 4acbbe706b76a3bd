"""What dialects' tables of errors share: a status without a word of its own means the same, whoever sent it."""

import pytest

from providers import DIALECTS
from providers.error_bodies import BODY_READ_MAX_BYTES, kind_of_status, no_answer, read_json, words_for
from providers.errors import BadRequestError, CredentialsError, GarbledError, OverloadedError, ServerError

VENDORS = sorted(set(DIALECTS) - {"local"})
"""The worker on this machine has errors of its own making."""


@pytest.mark.parametrize("dialect", VENDORS)
@pytest.mark.parametrize("status", [301, 400, 401, 404, 408, 409, 413, 418, 424, 425, 429, 500, 503, 504, 524, 529])
def test_a_status_means_the_same_in_every_dialect(dialect, status):
    error = DIALECTS[dialect].error(status, {}, b"<html>what</html>", now_unix_s=0.0)
    assert type(error) is kind_of_status(status)
    assert error.upstream_status == status


def test_a_status_that_nobody_knows_is_whose_hundred_it_is():
    assert [kind_of_status(status) for status in (304, 418, 599)] == [GarbledError, BadRequestError, ServerError]


def test_words_of_its_own_failure_and_of_our_key_stay_here():
    for status, kind in ((500, ServerError), (302, GarbledError), (403, CredentialsError)):
        assert "secret" not in words_for(status, "the secret of the account", b"", kind)
    assert words_for(429, "slow down", b"", OverloadedError) == "slow down"
    assert words_for(404, "", b" <html>", BadRequestError) == "the provider answered HTTP 404 with a web page"


def test_a_body_is_read_up_to_a_bound_and_nonsense_is_nothing():
    assert read_json(b'{"a": 1}') == {"a": 1}
    assert [read_json(one) for one in (b"", b"\xff", b"[" * 10_000, b'"' + b"a" * BODY_READ_MAX_BYTES + b'"')] == [
        None
    ] * 4


def test_a_200_without_an_answer_says_what_came():
    assert no_answer(b" \n", "a Message") == "the provider answered 200 with an empty body"
    assert no_answer(b"\n<html>", "a Message") == "the provider answered 200 with a web page"
    assert no_answer(b"42", "a Message") == "the provider answered 200 with something that is not a Message"
