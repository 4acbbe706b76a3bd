"""What OpenRouter publishes, as figures; and how it is asked for: bounded, patient, one host."""

import json

import httpx
import pytest
import tenacity
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.refreshed import section_of
from gateway.imports.changes import changes_of
from gateway.imports.draft import ImportSourceError
from gateway.imports.fetch import BODY_MAX_BYTES, Catalogue
from gateway.imports.openrouter_models import facts_of_model, read_endpoints, read_listing, with_origin
from tests.fakes.openrouter_lists import endpoints, listed, model_lists, page

PLACE = "/api/v1/models"


def section(**members):
    return section_of(with_origin(facts_of_model(listed("a/b", **members)), "the list", "2026-11-22"))


def test_prices_limits_and_capabilities_are_read_exactly():
    row = section(expiration_date="2027-01-31T00:00:00Z")
    assert (row.price.input, row.price.output, row.price.cache_read) == (2_000_000, 6_000_000, 200_000)
    assert row.price.request is None
    assert (row.context_tokens, row.max_output_tokens, row.ends_on.isoformat()) == (65536, 16384, "2027-01-31")
    flags = row.capabilities
    assert (flags.tools, flags.json_object, flags.json_schema, flags.seed, flags.logprobs, flags.vision) == (
        True,
        True,
        True,
        True,
        False,
        False,
    )
    assert flags.system is None  # the list does not say


def test_overrides_come_over_with_their_own_conditions():
    pricing = {
        "prompt": "0.000001",
        "overrides": [
            {"min_prompt_tokens": 200000, "prompt": "0.000002"},
            {"utc_start": 1630, "utc_end": 30, "completion": "0.0000001"},
            {"utc_start": 1675, "utc_end": 30, "prompt": "1"},
            {"audio": "0.1", "min_prompt_tokens": 5},
        ],
    }
    long, night = section(pricing=pricing).price.overrides
    assert (long.min_prompt_tokens, long.input, long.output) == (200_001, 2_000_000, None)
    assert (night.utc_start, night.utc_end, night.output) == ("16:30", "00:30", 100_000)


@pytest.mark.parametrize("price", ["-1", "", "free", None, 5.5, "1e99"])
def test_a_price_that_is_none_stays_unknown(price: object):
    assert section(pricing={"prompt": price, "completion": "0"}).price.input is None


def test_a_change_is_what_the_vendor_says_and_the_row_does_not():
    ours = section(pricing={"prompt": "0.000001"}, context_length=32768)
    found = {change.field: (change.ours, change.theirs) for change in changes_of(ours, section(), "p/a/b")}
    assert found["context_tokens"] == ("32768", "65536")
    assert found["price.input"] == ("1", "2")
    assert found["price.cache_read"] == ("", "0.20")
    assert "capabilities.tools" not in found
    assert changes_of(section(), section(), "p/a/b") == []


def test_what_stands_behind_a_model_is_told_in_a_line():
    one, many = endpoints((32768, "0.000002")), endpoints((65536, "0.000002"), (32768, "0.0000009"))
    assert read_endpoints(one[2]).words() == "1 endpoint, 32768 tokens, input 2"
    assert read_endpoints(many[2]).words() == "2 endpoints, 32768 to 65536 tokens, input 0.90 to 2"
    assert read_endpoints(endpoints()[2]).words() == "no endpoint answers for it"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PRICING = st.dictionaries(
    st.sampled_from(
        ["prompt", "completion", "request", "input_cache_read", "min_prompt_tokens", "utc_start", "utc_end"]
    ),
    JSON | st.sampled_from(["0.000001", "0.1", "1e-7", 1030, 5]),
)


@given(
    st.lists(
        st.fixed_dictionaries(
            {"id": st.text(max_size=10) | st.just("a/b")},
            optional={
                "context_length": JSON,
                "pricing": PRICING | st.fixed_dictionaries({"overrides": st.lists(PRICING)}) | JSON,
                "supported_parameters": JSON,
                "architecture": JSON,
                "top_provider": JSON,
                "expiration_date": JSON,
            },
        ),
        max_size=3,
    )
)
@settings(deadline=None)
def test_whatever_the_list_says_every_row_of_it_is_sound(models):
    for name, facts in read_listing(json.dumps({"data": models}).encode()).models.items():
        row = section_of(with_origin(facts, "the list", "2026-11-22"))
        assert changes_of(row, row, name) == []


@pytest.fixture
def lists():
    with model_lists() as served:
        yield served


@pytest.fixture
def catalogue(lists):
    asked = Catalogue(lists.url, api_key="sk-planted-0123456789", wait=tenacity.wait_none())
    yield asked
    asked.close()


def test_pages_are_followed_on_the_same_host_only(lists, catalogue):
    lists.answers[PLACE] = [page(listed("a/1"), following="/api/v1/models?offset=1")]
    lists.answers[f"{PLACE}?offset=1"] = [page(listed("a/2"), following="http://localhost.example:1/api/v1/models")]
    said: list[str] = []
    assert list(catalogue.list_models(said.append).models) == ["a/1", "a/2"]
    assert "another host" in said[0]
    assert all(headers["authorization"] == "Bearer sk-planted-0123456789" for _, headers in lists.seen)


def test_a_list_that_never_ends_does(lists, catalogue):
    lists.answers[PLACE] = [page(listed("a/1"), following="/api/v1/models")]
    said: list[str] = []
    assert list(catalogue.list_models(said.append).models) == ["a/1"]
    assert "pages" in said[0]


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_passing_failure_is_tried_again(lists, catalogue, status: int):
    lists.answers[PLACE] = [(status, {}, b""), (status, {}, b""), page(listed("a/1"))]
    assert list(catalogue.list_models(print).models) == ["a/1"]
    assert len(lists.seen) == 3


@pytest.mark.parametrize(
    ("answer", "words", "tries"),
    [
        ((302, {"location": "http://elsewhere.example/"}, b""), "leads elsewhere", 1),
        ((401, {}, b"secret words"), "HTTP 401", 1),
        ((404, {}, b""), "HTTP 404", 1),
        ((503, {}, b""), "HTTP 503", 3),
        ((200, {}, b"<html>"), "not JSON", 1),
        ((200, {}, b'{"data": 5}'), "no list", 1),
        ((200, {"content-encoding": "gzip"}, b"x"), "compressed", 1),
    ],
)
def test_what_is_no_list_is_refused_in_words(lists, catalogue, answer, words: str, tries: int):
    lists.answers[PLACE] = [answer]
    with pytest.raises(ImportSourceError, match=words) as refused:
        catalogue.list_models(print)
    assert refused.value.fix
    assert "secret words" not in refused.value.message
    assert len(lists.seen) == tries


def test_an_endless_answer_is_cut_short():
    class Endless(httpx.SyncByteStream):
        given = 0

        def __iter__(self):
            while True:
                Endless.given += 1
                yield b" " * 1_000_000

    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=Endless()))
    asked = Catalogue("http://h/v1", transport=transport, wait=tenacity.wait_none())
    with pytest.raises(ImportSourceError, match="more than"):
        asked.list_models(print)
    assert Endless.given <= BODY_MAX_BYTES // 1_000_000 + 2
    asked.close()


def test_nobody_there_is_said_after_three_tries():
    asked = Catalogue("http://127.0.0.1:1/v1", wait=tenacity.wait_none())
    with pytest.raises(ImportSourceError, match="ConnectError"):
        asked.list_models(print)
    asked.close()


def test_an_unknown_model_has_no_endpoints_and_its_name_stays_a_path(lists, catalogue):
    assert catalogue.list_endpoints("a/b?c=d#../e") is None
    assert lists.seen[0][0] == f"{PLACE}/a/b%3Fc%3Dd%23../e/endpoints"
