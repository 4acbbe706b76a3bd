"""What a provider says that it charged, read from its exports, and held against the ledger."""

import contextlib
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.reports.claims import UnreadableClaimsError, nano_of, read_claims
from gateway.reports.reader import ReportReader
from gateway.reports.reconcile import read_rows, reconcile
from gateway.state.ledger_reader import Filter
from tests.fakes.catalogues import catalogue, endpoint, route
from tests.fakes.scripted_day import START_S, Day

A, B = endpoint("a/org/m", 1.0), endpoint("b/m", 2.0)
TODAY, TOMORROW = "2024-10-04", "2024-10-05"
ACTIVITY = {
    "data": [
        {
            "date": TODAY,
            "model": "org/m",
            "endpoint_id": "0b3c",
            "provider_name": "A",
            "requests": 2,
            "usage": 0.0003,
            "byok_usage_inference": 0,
            "prompt_tokens": 200,
            "completion_tokens": 100,
        }
    ]
}
GENERATION = {
    "data": {
        "id": "up-1",
        "upstream_id": "chatcmpl-9",
        "created_at": f"{TODAY}T23:59:59.5+00:00",
        "model": "org/m",
        "total_cost": 0.00015,
        "usage": 0.00015,
        "native_tokens_prompt": 100,
        "native_tokens_completion": 50,
    }
}


@pytest.fixture
def day(tmp_path):
    made = Day(tmp_path, catalogue([A, B], [route([A, B], policy="ordered")]))
    yield made
    made.close()


def compared(day, claims, **more):
    with ReportReader(day.path) as reader:
        entries = read_rows(reader, Filter(provider="a"))
    return reconcile(entries, claims, **({"since": TODAY, "until": TODAY, "names": {}} | more))


def told(found):
    return [(one.kind, one.id, one.ours_usd, one.theirs_usd, one.difference_usd) for one in found.differences]


def test_an_export_of_days_is_held_against_the_sums_of_day_and_model(day):
    for number in range(2):
        day.ask(START_S + number, [("a/org/m", {})])
    day.ask(START_S + 9, [("a/org/m", {"outcome": "failed"}), ("b/m", {})])  # refused: nobody charges for it
    claims = read_claims(json.dumps(ACTIVITY).encode(), {})
    assert [(one.day, one.model, one.cost_in_nusd, one.requests, one.id) for one in claims] == [
        (TODAY, "org/m", 300_000, 2, None)
    ]
    found = compared(day, claims)
    assert (found.matched, told(found), found.ours_usd, found.theirs_usd) == (1, [], "0.0003", "0.0003")
    day.ask(START_S + 20, [("a/org/m", {})])
    found = compared(day, claims)
    assert told(found) == [("amount", None, "0.00045", "0.0003", "-0.00015")]
    assert (found.differences[0].ours_requests, found.differences[0].theirs_requests) == (3, 2)


def test_answers_are_held_against_each_other_by_the_providers_id(day):
    day.ask(START_S, [("a/org/m", {"upstream_id": "up-1"})])
    lost = day.ask(START_S + 1, [("a/org/m", {"upstream_id": "up-2"})])
    day.ask(START_S + 2, [("a/org/m", {"upstream_id": "up-3", "reported": 149_999})])
    # Sent before midnight here, booked after it there.
    day.ask(START_S + 86_399, [("a/org/m", {"upstream_id": "up-4"})])
    others = [
        {"id": "up-3", "created_at": TODAY, "model": "org/m", "total_cost": 0.00015},
        {"id": "up-4", "created_at": TODAY, "model": "org/m", "total_cost": 0.00015},
        {"id": "up-5", "created_at": TODAY, "model": "org/m", "total_cost": 1e-9},
    ]
    claims = read_claims("\n".join(json.dumps(one) for one in [GENERATION, *others]).encode(), {})
    found = compared(day, claims)
    assert found.matched == 2
    assert told(found) == [
        ("missing_there", "up-2", "0.00015", None, "-0.00015"),
        ("amount", "up-3", "0.000149999", "0.00015", "0.000000001"),
        ("missing_here", "up-5", None, "0.000000001", "0.000000001"),
    ]
    assert found.differences[0].attempt_id == f"{lost}/1"
    assert found.difference_usd == "-0.000149998"
    assert compared(day, claims, tolerance_in_nusd=1).matched == 3


def test_an_invoice_is_read_by_the_usual_names_and_by_those_that_are_said(day):
    day.ask(START_S, [("a/org/m", {})])
    text = f"\ufeffUsage Date;Model;Charged for it;Prompt Tokens\n{TODAY} 12:00:00;Org M;$0.00015;1,000\n"
    with pytest.raises(UnreadableClaimsError, match="which column is the cost"):
        read_claims(text.encode(), {})
    claims = read_claims(text.encode(), {"cost": "Charged for it"})
    assert [(one.day, one.cost_in_nusd, one.input_tokens) for one in claims] == [(TODAY, 150_000, 1000)]
    assert [one.kind for one in compared(day, claims).differences] == ["missing_here", "missing_there"]
    assert compared(day, claims, names={"Org M": "org/m"}).differences == ()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("date,model,cost\n2024-10-04,m,free\n", "row 1: 'free' is no amount of dollars"),
        ("date,model,cost\nyesterday,m,1\n", "row 1: 'yesterday' is no day"),
        ("date,model,cost\n2024-13-04,m,1\n", "row 1"),
        ("model,cost\nm,1\n", "which column is the date"),
        ("{", "it is no JSON"),
    ],
)
def test_what_cannot_be_understood_is_said_with_its_row(text, words):
    with pytest.raises(UnreadableClaimsError, match=words):
        read_claims(text.encode(), {})


@given(st.decimals(-(10**6), 10**6, places=9), st.booleans())
def test_amounts_are_read_exactly(amount, dollar):
    text = f"{'-' if amount < 0 else ''}{'$' if dollar else ''}{abs(amount):f}"
    assert nano_of(text) == nano_of(amount) == int(amount * 10**9)


@pytest.mark.parametrize(
    ("text", "nano"),
    [
        ("1,234.50", 1_234_500_000_000),
        ("0.0000000005", 0),
        ("0.0000000015", 2),
        ("1e-9", 1),
        (Decimal("2.5E-9"), 2),
        (3, 3 * 10**9),
    ],
)
def test_what_is_finer_than_a_nano_dollar_is_rounded_half_to_even(text, nano):
    assert nano_of(text) == nano


@pytest.mark.parametrize("text", ["", "1,23", "0x1", "1e999", "NaN", "$", True, None, "9" * 50])
def test_what_is_no_amount_is_refused(text):
    with pytest.raises(ValueError, match="no amount"):
        nano_of(text)


@given(st.binary(max_size=200))
def test_any_bytes_are_claims_or_an_error_of_ours(data):
    with contextlib.suppress(UnreadableClaimsError):
        read_claims(data, {})
