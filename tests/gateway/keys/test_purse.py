"""Budgets that cannot be overspent, whatever happens in whatever order."""

import random

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from gateway.errors import KeysUnavailableError
from gateway.keys.budget import Offer, span_starts
from gateway.keys.key import WINDOWS, KeyLimits, KeyRecord
from gateway.keys.purse import LEASE_EXTRA_S, Grant, Purse, Refusal, read_past
from gateway.keys.ring import KeyRing

DOLLAR = 10**9
NOON = 1_795_348_800.0
"""2026-11-22 12:00 UTC, a Sunday: the day and the week end in twelve hours."""


def record(key_id, parent=None, **limits):
    return KeyRecord(
        id=key_id, name=key_id, digest=b"", created_us=1, updated_us=1, parent=parent, limits=KeyLimits(**limits)
    )


def purse_of(*records):
    return Purse(KeyRing(b"pepper", records).chain)


OFFERS = (Offer("e", 0, 1_000, 1_000),)


def ask(purse, lease, key="k", offers=OFFERS, unix_s=NOON, now_s=0.0, total_s=600.0):
    return purse.reserve(lease, key, offers, unix_s=unix_s, now_s=now_s, total_s=total_s)


class Spending(RuleBasedStateMachine):
    """Two teams, one inside the other, and keys in both. Requests come, fall back, hedge, end and are forgotten."""

    KEYS = ("root", "team", "a", "b", "lone", "free")

    @initialize(data=st.data())
    def begin(self, data):
        amount = st.one_of(st.none(), st.integers(0, 20_000))
        self.records = []
        for key_id, parent in (
            *(("root", None), ("team", "root"), ("a", "team"), ("b", "root")),
            *(("lone", None), ("free", None)),
        ):
            budgets = {} if key_id == "free" else {f"{window}_in_nusd": data.draw(amount) for window in WINDOWS}
            self.records.append(record(key_id, parent, **budgets))
        self.ring = KeyRing(b"pepper", self.records)
        self.purse = Purse(self.ring.chain)
        self.unix_s, self.now_s, self.count = NOON, 0.0, 0
        self.leases, self.held, self.spent = {}, {}, []

    @rule(key=st.sampled_from(KEYS), data=st.data())
    def reserve(self, key, data):
        offers = data.draw(
            st.lists(
                st.builds(Offer, st.just("e"), st.integers(0, 10**6), st.integers(0, 10**5), st.integers(0, 300)),
                max_size=3,
            )
        )
        self.count += 1
        lease = f"l{self.count}"
        found = ask(self.purse, lease, key, offers, self.unix_s, self.now_s)
        assert isinstance(found, Grant | Refusal)
        self.forget_what_has_expired()
        if isinstance(found, Grant):
            self.leases[lease] = (key, self.now_s)
            assert ask(self.purse, lease, key, offers, self.unix_s, self.now_s) is found

    def forget_what_has_expired(self):
        """Whoever waits long enough between two requests loses what was reserved before."""
        alive = self.purse._leases
        for lease, (_, since_s) in self.leases.items():
            assert lease in alive or self.now_s >= since_s + 600 + LEASE_EXTRA_S, "not yet"
        self.leases = {lease: one for lease, one in self.leases.items() if lease in alive}
        self.held = {attempt: one for attempt, one in self.held.items() if one[0] in alive}

    @rule(worst=st.integers(0, 9_000), data=st.data())
    def hold(self, worst, data):
        if not self.leases:
            return
        lease = data.draw(st.sampled_from(sorted(self.leases)))
        self.count += 1
        attempt = f"{lease}/{self.count}"
        if self.purse.hold(lease, attempt, worst, unix_s=self.unix_s) is None:
            self.held[attempt] = (lease, self.leases[lease][0], worst, self.unix_s)

    @rule(share=st.floats(0, 1), twice=st.booleans(), unknown=st.booleans(), data=st.data())
    def settle(self, share, twice, unknown, data):
        if not self.held:
            return
        attempt = data.draw(st.sampled_from(sorted(self.held)))
        lease, key, worst, unix_s = self.held.pop(attempt)
        cost = round(worst * share)
        known = lease in self.purse._leases
        for _ in range(1 + twice):
            self.purse.settle(lease, attempt, None if unknown and known else cost)
        self.spent.append((key, unix_s, worst if unknown and known else cost))

    @rule(twice=st.booleans(), data=st.data())
    def release(self, twice, data):
        if self.leases:
            lease = data.draw(st.sampled_from(sorted(self.leases)))
            for _ in range(1 + twice):
                self.purse.release(lease)
            del self.leases[lease]

    @rule(seconds=st.sampled_from([1.0, 3600.0, 43_200.0, 86_400.0, 86_400.0 * 31]))
    def wait(self, seconds):
        self.unix_s += seconds
        self.now_s += min(seconds, 60.0)

    @rule()
    def let_all_leases_expire(self):
        self.now_s += 600 + LEASE_EXTRA_S
        ask(self.purse, "", "free", (), self.unix_s, self.now_s)
        self.purse.release("")
        self.leases = {}
        assert all(account.reserved_in_nusd == 0 for account in self.purse._accounts.values())
        # What expired while it was held may settle late; then it has been spent beyond what anybody could reserve.
        self.held = {}

    @invariant()
    def nobody_has_more_than_the_budget(self):
        starts = span_starts(self.unix_s)
        for one in self.records if hasattr(self, "records") else ():
            account = self.purse._account(one.id)
            assert account.reserved_in_nusd >= 0
            for window in WINDOWS:
                budget = one.limits.budget(window)
                spent = account.spent(window, starts)
                assert budget is None or spent + account.reserved_in_nusd <= budget

    @invariant()
    def what_was_spent_is_what_was_settled(self):
        if not hasattr(self, "records"):
            return
        starts = span_starts(self.unix_s)
        for one in self.records:
            below = {key for key in self.KEYS if one.id in {each.id for each in self.ring.chain(key)}}
            for place, window in enumerate(WINDOWS):
                settled = [c for key, at, c in self.spent if key in below and span_starts(at)[place] == starts[place]]
                assert self.purse._account(one.id).spent(window, starts) == sum(settled)

    def teardown(self):
        if not hasattr(self, "records"):
            return
        for attempt, (lease, *_) in self.held.items():
            self.purse.settle(lease, attempt, 0)
        for lease in self.leases:
            self.purse.release(lease)
        assert not self.purse._leases
        assert all(account.reserved_in_nusd == 0 for account in self.purse._accounts.values())


Spending.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestSpending = Spending.TestCase


def attempts_of(purse, grant, offers, dice):
    """One Attempt or two at a time, as far as they can be afforded."""
    for number in range(dice.choice([1, 1, 1, 2])):
        offer = offers[dice.choice([0, 0, number])]
        worst, attempt = offer.worst_in_nusd(grant.output_tokens_max), f"{grant.id}/{number}"
        if offer.endpoint in grant.endpoints and purse.hold(grant.id, attempt, worst, unix_s=NOON) is None:
            yield attempt, worst


def end_one(purse, running, dice):
    lease, attempts = running.pop(dice.randrange(len(running)))
    for attempt, worst in attempts:
        purse.settle(lease, attempt, 0 if dice.random() < 0.1 else dice.randint(worst // 10, worst))
    purse.release(lease)


@pytest.mark.parametrize("seed", range(3))
def test_five_hundred_clients_spend_a_dollar_and_not_a_nanodollar_more(seed):
    """Each asks until it is finally refused; answers cost anything up to the worst case, some fail, some are hedged."""
    dice = random.Random(seed)
    purse = purse_of(record("k", ever_in_nusd=DOLLAR))
    offers = (Offer("cheap", 40_000_000, 600_000, 2_000), Offer("dear", 90_000_000, 2_000_000, 2_000))
    clients, running, count, waits = set(range(500)), [], 0, 0
    while clients:
        client = dice.choice(sorted(clients))
        count += 1
        found = ask(purse, str(count), offers=offers, now_s=float(count) / 1000)
        if isinstance(found, Grant):
            running.append((found.id, list(attempts_of(purse, found, offers, dice))))
        elif found.final:
            clients.discard(client)
        else:
            waits += 1
            end_one(purse, running, dice)
        if len(running) > 400 or (running and dice.random() < 0.5):
            end_one(purse, running, dice)
    while running:
        end_one(purse, running, dice)
    spent = purse.usage("k", NOON).ever_in_nusd
    assert 0.95 * DOLLAR <= spent <= DOLLAR
    assert purse.usage("k", NOON).reserved_in_nusd == 0
    assert waits


def test_a_team_bounds_all_its_children_together():
    purse = purse_of(record("team", day_in_nusd=1_500), record("k", "team"), record("l", "team", day_in_nusd=9_000))
    first = ask(purse, "1", "k")
    second = ask(purse, "2", "l")
    third = ask(purse, "3", "k", offers=(Offer("e", 0, 50_000, 1_000),))
    assert first.amount_in_nusd == 1_000
    assert (second.amount_in_nusd, second.clamped, second.output_tokens_max) == (500, True, 500)
    assert isinstance(third, Refusal)
    assert third.standing.key_id == "team"
    assert not third.final


def test_a_refusal_is_final_only_once_the_money_is_spent():
    purse = purse_of(record("k", week_in_nusd=1_000))
    ask(purse, "1")
    refused = ask(purse, "2")
    assert not refused.final
    assert refused.standing.reserved_in_nusd == 1_000
    purse.hold("1", "1/1", 1_000, unix_s=NOON)
    purse.settle("1", "1/1", 995)
    purse.release("1")
    refused = ask(purse, "2")
    assert refused.final
    assert (refused.standing.window, refused.standing.spent_in_nusd, refused.wanted_in_nusd) == ("week", 995, 16)


def test_free_endpoints_stay_when_the_money_is_spent():
    purse = purse_of(record("k", ever_in_nusd=0))
    assert purse.left("k", NOON) == 0
    found = ask(purse, "1", offers=(Offer("paid", 5, 5, 100), Offer("local", 0, 0, 100)))
    assert found.endpoints == ("local",)
    assert purse.hold("1", "1/1", 0, unix_s=NOON) is None
    assert purse.hold("1", "1/2", 1, unix_s=NOON).final


def test_a_dearer_fallback_reserves_what_is_missing_and_no_more():
    purse = purse_of(record("k", ever_in_nusd=10_000))
    ask(purse, "1")
    purse.hold("1", "1/1", 1_000, unix_s=NOON)
    purse.settle("1", "1/1", 300)  # it failed, and was billed
    assert purse.hold("1", "1/2", 4_000, unix_s=NOON) is None
    usage = purse.usage("k", NOON)
    assert (usage.ever_in_nusd, usage.reserved_in_nusd) == (300, 4_000)


def test_a_hedge_reserves_for_both():
    purse = purse_of(record("k", ever_in_nusd=1_500))
    ask(purse, "1")
    assert purse.hold("1", "1/1", 1_000, unix_s=NOON) is None
    assert purse.hold("1", "1/2", 1_000, unix_s=NOON) is not None
    assert purse.hold("1", "1/3", 500, unix_s=NOON) is None


def test_a_hedge_that_ends_after_its_request_counts():
    purse = purse_of(record("k", ever_in_nusd=2_000))
    ask(purse, "1")
    purse.hold("1", "1/1", 1_000, unix_s=NOON)
    purse.hold("1", "1/2", 1_000, unix_s=NOON)
    purse.settle("1", "1/1", 10)
    purse.release("1")
    assert purse.usage("k", NOON).reserved_in_nusd == 1_000
    purse.settle("1", "1/2", 20)
    usage = purse.usage("k", NOON)
    assert (usage.ever_in_nusd, usage.reserved_in_nusd) == (30, 0)


def test_a_lease_that_nobody_ends_expires_and_its_cost_counts_all_the_same():
    purse = purse_of(record("k", ever_in_nusd=1_000))
    ask(purse, "1", total_s=10)
    purse.hold("1", "1/1", 1_000, unix_s=NOON)
    assert isinstance(ask(purse, "2", now_s=69.9), Refusal)
    assert isinstance(ask(purse, "2", now_s=70.0), Grant)
    assert purse.expired == 1
    purse.settle("1", "1/1", 400)
    purse.settle("1", "1/1", 400)
    assert purse.usage("k", NOON).ever_in_nusd == 400
    purse.release("1")


def test_an_answer_around_midnight_counts_on_the_day_on_which_it_was_sent():
    purse = purse_of(record("k", day_in_nusd=1_000))
    midnight = NOON + 43_200
    ask(purse, "1", unix_s=midnight - 1)
    purse.hold("1", "1/1", 1_000, unix_s=midnight - 1)
    assert isinstance(ask(purse, "2", unix_s=midnight + 1), Refusal)  # reserved is reserved, on whichever side
    purse.settle("1", "1/1", 700)
    purse.release("1")
    assert purse.usage("k", midnight - 1).day_in_nusd == 700
    assert purse.usage("k", midnight + 1).day_in_nusd == 0
    assert isinstance(ask(purse, "2", unix_s=midnight + 1), Grant)


def test_what_the_ledger_knows_is_there_after_a_restart():
    purse = purse_of(record("team", month_in_nusd=1_000), record("k", "team"), record("l", "team"))
    purse.knows_past = False
    with pytest.raises(KeysUnavailableError):
        ask(purse, "1")
    assert isinstance(purse_of(record("x")).reserve("1", "x", (), unix_s=NOON, now_s=0, total_s=1), Grant)
    spent = {"day": {"k": 1}, "week": {"k": 10}, "month": {"k": 100, "l": 800, "gone": 5}, "ever": {"k": 10**6}}
    purse.load(read_past(lambda window, _start: spent[window], NOON))
    assert purse.left("k", NOON) == 100
    assert purse.usage("team", NOON).month_in_nusd == 900
    assert purse.usage("k", NOON).week_in_nusd == 10


def test_an_answer_dearer_than_its_prices_is_counted_and_told():
    purse = purse_of(record("k", ever_in_nusd=1_000))
    ask(purse, "1")
    purse.hold("1", "1/1", 1_000, unix_s=NOON)
    purse.settle("1", "1/1", 1_500)
    purse.release("1")
    assert purse.overdrawn_in_nusd == 500
    assert purse.left("k", NOON) == 0


def test_what_was_never_held_costs_nothing():
    purse = purse_of(record("k", ever_in_nusd=1_000))
    purse.settle("never", "never/1", 700)
    ask(purse, "1")
    purse.settle("1", "1/9", 700)
    purse.release("1")
    purse.release("1")
    assert purse.left("k", NOON) == 1_000
