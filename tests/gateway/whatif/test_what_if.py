"""What would have been: figures worked out by hand, and sums that must agree with the ledger to the nano-dollar."""

from fractions import Fraction

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.explain.record import Rescued
from gateway.observation import Observation
from gateway.reports.reader import ReportReader
from gateway.routing.ask import Ask
from gateway.state.cache_rows import CacheRow, write_cache_rows
from gateway.state.connection import open_writer
from gateway.state.ledger_reader import Filter
from gateway.whatif.run import Inquiry, Question, answer, savings
from gateway.whatif.scenarios import KINDS, draw_of, with_policy
from tests.fakes.catalogues import catalogue, endpoint, priced, route
from tests.fakes.listener import FULL
from tests.fakes.scripted_day import START_S, US, Day

A = endpoint("a/m", price=priced(1, 1, cache_read_in_pusd=100_000), context_tokens=10_000)
B = endpoint("b/m", price=priced(2, 4), context_tokens=10_000)
C = endpoint("c/m", price=priced(0.5, 3), context_tokens=10_000)
SMALL = endpoint("d/n", price=priced(10, 10), model="n", context_tokens=250)
UNPRICED = endpoint("e/x", None, model="x", context_tokens=10_000)
CATALOGUE = catalogue(
    [A, B, C, SMALL, UNPRICED],
    [route([A, B, C], policy="ordered"), route([SMALL], "n"), route([UNPRICED], "x")],
)
REFUSED = {"outcome": "failed", "code": "provider_error"}
CUT = {"outcome": "failed", "cut": True, "output": 20, "code": "truncated"}


@pytest.fixture
def day(tmp_path):
    made = Day(tmp_path, CATALOGUE, lazy=True)
    yield made
    made.close()


def asked(day, *questions, rows_max=10_000, window=(START_S - 10, START_S + 100_000)):
    since, until = window
    with ReportReader(day.path) as reader:
        return answer(
            reader,
            [Question(*question.split(":")) for question in questions],
            CATALOGUE,
            since_us=int(since * US),
            until_us=int(until * US),
            rows_max=rows_max,
        )


def lines(day, *questions, **more):
    return {f"{line.kind}:{line.name}".rstrip(":"): line for line in asked(day, *questions, **more).lines}


def nusd(text):
    return int(Fraction(text) * 10**9)


def test_hand_computed_figures_of_two_requests(day):
    day.ask(START_S, [("a/m", {})])  # 100 + 50 tokens at 1 and 1: 0.000150
    day.ask(START_S + 10, [("a/m", REFUSED), ("b/m", {})])  # at 2 and 4: 0.000400
    found = lines(day, "on:b/m", "on:c/m", "policy:price", "policy:ordered", "cheapest", "priciest", "first_choice")
    figures = {name: (line.would_have_usd, line.from_ledger, line.priced) for name, line in found.items()}
    assert figures == {
        "on:b/m": ("0.0008", 1, 1),
        "on:c/m": ("0.0004", 0, 2),
        "policy:price": ("0.00035", 1, 1),  # a; then a, which failed, and c
        "policy:ordered": ("0.00055", 2, 0),
        "cheapest": ("0.00035", 1, 1),  # a; of the second, a failed: c
        "priciest": ("0.0008", 1, 1),  # b both times
        "first_choice": ("0.0003", 1, 1),  # a both times, had it answered
    }
    assert {line.as_was_usd for line in found.values()} == {"0.00055"}
    assert found["policy:price"].difference_usd == "-0.0002"


def test_the_failure_of_whoever_is_asked_first_is_paid_again(day):
    day.ask(START_S, [("b/m", CUT), ("c/m", {})])  # 200 + 80 of b for nothing, then 50 + 150 of c
    assert asked(day).as_was_usd == "0.00048"
    (line,) = asked(day, "policy:ordered").lines
    # Decided again it is a, b, c, as it was by its record; so what it cost is what it cost.
    assert (line.would_have_usd, line.from_ledger) == ("0.00048", 1)
    (line,) = asked(day, "policy:price").lines
    assert (line.would_have_usd, line.priced) == ("0.00015", 1)  # a, who was not asked, answers


def test_what_does_not_fit_has_no_price_or_no_answer_is_left_out_and_said(day):
    day.ask(START_S, [("a/m", {"input": 200, "output": 50})], ask=Ask(prompt_tokens=300, output_tokens=200))
    day.ask(START_S + 5, [("a/m", {})], ask=Ask(prompt_tokens=100, output_tokens=100))
    day.ask(START_S + 9, [("a/m", REFUSED)], ask=Ask(prompt_tokens=100, output_tokens=100))
    found = lines(day, "on:n", "on:x")
    assert (found["on:n"].requests, found["on:n"].would_have_usd, found["on:n"].as_was_usd) == (1, "0.0015", "0.00015")
    assert sorted((one.requests, one.as_was_usd) for one in found["on:n"].left_out) == [(1, "0.00"), (1, "0.00025")]
    assert {one.reason.split(":")[0] for one in found["on:n"].left_out} == {
        "nobody there could have served it",
        "there was no answer",
    }
    assert found["on:x"].requests == 0
    assert "the price there is not known" in {one.reason for one in found["on:x"].left_out}


def test_without_its_cache_a_prompt_costs_its_whole_price(day):
    # 1000 tokens, 800 of them cached: 200 * 1 + 800 * 0.1 + 50 = 330; without: 1050.
    day.ask(START_S, [("a/m", {"input": 1000, "cached": 800})])
    # What the provider says it charged counts, and the difference of our prices on top.
    day.ask(START_S + 5, [("a/m", {"input": 1000, "cached": 800, "reported": 123_456})])
    day.ask(START_S + 9, [("a/m", {})])
    whole = asked(day, "no_cache")
    assert nusd(whole.as_was_usd) == 330_000 + 123_456 + 150_000
    (line,) = whole.lines
    assert nusd(line.would_have_usd) == 1_050_000 + (123_456 + 720_000) + 150_000
    assert (line.from_ledger, line.priced) == (1, 2)


def test_a_rescued_answer_is_priced_as_one(day):
    rescued = Rescued(by="prefill", cut="a/m", continued="b/m", after_chars=80)
    # Cut after 20 tokens; the rest was asked for with the 20 as part of the prompt.
    day.ask(START_S, [("a/m", CUT), ("b/m", {"input": 120, "output": 30})], rescued=rescued)
    (line,) = asked(day, "on:c/m").lines
    assert (line.would_have_usd, line.estimated) == ("0.0002", 1)  # 100 read, 50 written


def test_without_a_record_todays_configuration_decides_and_that_is_said(day):
    day.ask(START_S, [("a/m", {})], record=False)
    whole = asked(day, "policy:price", "priciest")
    assert whole.without_record == 1
    assert any("today's configuration" in caveat for caveat in whole.caveats)
    assert [(line.would_have_usd, line.by_today) for line in whole.lines] == [("0.00015", 1), ("0.0004", 1)]


def test_who_was_down_is_not_feasible(day):
    down = {"c/m": Observation(standing="open", until_s=1e9), "a/m": Observation(standing="open", until_s=1e9)}
    day.ask(START_S, [("b/m", {})], seen=down)
    (line,) = asked(day, "cheapest").lines
    assert (line.would_have_usd, line.from_ledger) == ("0.0004", 1)


def test_the_window_is_exact_and_a_bound_is_said(day):
    for number in range(6):
        day.ask(START_S + number, [("a/m", {})])
    assert asked(day, window=(START_S + 2, START_S + 4)).requests == 2
    part = asked(day, "cheapest", rows_max=4)
    assert (part.requests, part.complete, part.as_was_usd) == (4, False, "0.0006")
    assert asked(day).complete


def test_what_is_not_there_cannot_be_asked_for(day):
    with pytest.raises(ValueError, match="no model or endpoint is called 'nowhere'"):
        asked(day, "on:nowhere")
    with pytest.raises(ValueError, match="there is no policy 'luck'"):
        asked(day, "policy:luck")


def test_answers_that_were_given_again_are_told_apart(day):
    day.ask(START_S, [("a/m", {})])
    connection = open_writer(day.path)
    with connection:
        write_cache_rows(connection, [CacheRow(START_S // 3600, "k", "m", "m", 3, 450_000)])
        write_cache_rows(connection, [CacheRow(START_S // 3600 + 50, "k", "m", "m", 9, 9)])
    connection.close()
    found = asked(day, "no_cache", window=(START_S, START_S + 3600))
    assert (found.given_again.answers, found.given_again.saved_usd) == (3, "0.00045")
    assert found.as_was_usd == "0.00015"


def test_savings_add_up_what_each_part_saved(day):
    day.ask(START_S, [("a/m", {})])
    day.ask(START_S + 5, [("a/m", {"input": 1000, "cached": 800})])
    day.ask(START_S + 10, [("a/m", CUT), ("b/m", {})])  # 120 were wasted
    rescued = Rescued(by="again", cut="a/m", continued="b/m", after_chars=80)
    day.ask(START_S + 20, [("a/m", CUT), ("b/m", {})], rescued=rescued)
    with ReportReader(day.path) as reader:
        found = savings(reader, CATALOGUE, since_us=START_S * US, until_us=(START_S + 100) * US)
    assert nusd(found.as_was_usd) == 150_000 + 330_000 + 2 * (120_000 + 400_000)
    assert found.prompt_cache_usd == "0.00072"
    assert (found.failovers.requests, found.failovers.wasted_usd) == (1, "0.00012")
    assert found.failovers.dearer_usd == "0.00025"  # 400 at b instead of 150 at a
    assert (found.rescues.requests, found.rescues.kept_usd) == (1, "0.00012")
    # The dearest is b: 400, 2200, 400, 400, without what was wasted.
    assert nusd(found.versus_priciest.would_have_usd) == 3_400_000
    assert nusd(found.routing_usd) == 3_400_000 - nusd(found.as_was_usd)
    assert found.given_again.answers == 0
    assert msgspec.json.encode(found)


def test_an_inquiry_that_is_broken_off_tells_what_it_has_read(day):
    for number in range(450):
        day.ask(START_S + number, [("a/m", {})], record=False)
    with ReportReader(day.path) as reader:
        rows = Filter(since_unix_us=START_S * US, until_unix_us=(START_S + 1000) * US)
        inquiry = Inquiry(reader, [Question("cheapest")], CATALOGUE, rows)
        steps = inquiry.steps()
        next(steps)
        found = inquiry.result()
    assert (found.requests, found.complete, found.lines[0].requests) == (200, False, 200)


def test_a_draw_in_the_place_of_one_that_is_not_kept_is_always_the_same(day):
    day.ask(START_S, [("a/m", {})], record=False)
    with ReportReader(day.path) as reader:
        (request,) = reader.walk(Filter(), rows_max=10)

    class _Case:
        entries = request.entries

    assert draw_of(_Case()) == draw_of(_Case())
    assert 0 <= draw_of(_Case()) < 1


def test_another_policy_changes_nothing_but_the_policy(day):
    table = day.table("m")
    again = with_policy(with_policy(table, "price"), "ordered")
    assert again == table


ends = st.sampled_from([{}, REFUSED, CUT, {"outcome": "cancelled", "output": 7}, {"input": 333, "cached": 100}])
attempts = st.lists(st.tuples(st.sampled_from(["a/m", "b/m", "c/m"]), ends), min_size=1, max_size=4)
days = st.lists(st.tuples(attempts, st.booleans()), min_size=1, max_size=8)


@settings(max_examples=400 if FULL else 25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(days)
def test_both_sums_and_what_is_left_out_are_the_ledger_whatever_happened(tmp_path_factory, requests):
    day = Day(tmp_path_factory.mktemp("day"), CATALOGUE, lazy=True)
    for number, (tries, record) in enumerate(requests):
        day.ask(START_S + 20 * number, tries, record=record)
    since, until = START_S, START_S + 100_000
    with ReportReader(day.path) as reader:
        spent = reader.spend("all", since * US, until * US)[0].cost_in_nusd
    names = {"on": ":m", "policy": ":ordered"}
    whole = asked(day, *(f"{kind}{names.get(kind, '')}" for kind in KINDS))
    assert nusd(whole.as_was_usd) == spent
    for line in whole.lines:
        left = sum(nusd(one.as_was_usd) for one in line.left_out)
        assert nusd(line.as_was_usd) + left == spent
        assert line.requests + sum(one.requests for one in line.left_out) == whole.requests == len(requests)
        assert line.requests == line.from_ledger + line.priced + line.estimated
        assert nusd(line.would_have_usd) - nusd(line.as_was_usd) == nusd(line.difference_usd)
    same = next(line for line in whole.lines if line.kind == "policy")
    if whole.without_record == 0:
        assert same.would_have_usd == same.as_was_usd == whole.as_was_usd
    day.close()
