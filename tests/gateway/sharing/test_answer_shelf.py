"""The shelf of answers in memory: within its bound, and nobody pushes out what another has a right to."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.sharing.answer_shelf import SPARE_MARKS, AnswerShelf
from gateway.sharing.memory import ANSWER_COST_BYTES, MemoryAnswers

SIZE_MAX = 1000


def put(shelf, tenant, name, size=100, until_s=100.0, now_s=0.0):
    shelf.put(tenant, name, name.encode(), size=size, until_unix_s=until_s, unix_s=now_s)


def kept(shelf, tenant, names, now_s=0.0):
    return [name for name in names if shelf.get(tenant, name, now_s) is not None]


def test_one_who_keeps_very_many_pushes_out_only_his_own():
    shelf = AnswerShelf(SIZE_MAX)
    few = ["f0", "f1", "f2"]
    for name in few:
        put(shelf, "few", name)
    many = [f"m{number}" for number in range(500)]
    for name in many:
        put(shelf, "many", name)
    assert kept(shelf, "few", few) == few
    assert kept(shelf, "many", many) == many[-7:]
    late = [f"l{number}" for number in range(5)]
    for name in late:
        put(shelf, "late", name)
    counts = [len(kept(shelf, *one)) for one in (("few", few), ("late", late), ("many", many))]
    assert (counts[0], sum(counts)) == (3, 10)
    assert min(counts) == 3


def test_one_who_is_alone_may_have_all_of_it_and_loses_what_was_not_looked_at_longest():
    shelf = AnswerShelf(SIZE_MAX)
    names = [f"n{number}" for number in range(10)]
    for name in names:
        put(shelf, "a", name)
    assert kept(shelf, "a", names[:1]) == ["n0"]
    put(shelf, "a", "new", size=200)
    assert kept(shelf, "a", [*names, "new"]) == ["n0", *names[3:], "new"]


def test_what_has_ended_makes_room_before_anything_that_has_not():
    shelf = AnswerShelf(SIZE_MAX)
    for number in range(5):
        put(shelf, "short", str(number), until_s=10.0)
        put(shelf, "long", str(number))
    put(shelf, "long", "5", size=400, now_s=10.0)
    assert len(kept(shelf, "long", map(str, range(6)), 10.0)) == 6
    assert kept(shelf, "short", map(str, range(5)), 0.0) == []


def test_what_is_put_again_or_larger_than_the_shelf_leaves_nothing_of_the_old_one():
    shelf = AnswerShelf(SIZE_MAX)
    put(shelf, "a", "x", size=600)
    put(shelf, "a", "x", size=500)
    put(shelf, "b", "y", size=500)
    assert (kept(shelf, "a", "x"), kept(shelf, "b", "y")) == (["x"], ["y"])
    put(shelf, "a", "x", size=SIZE_MAX + 1)
    assert kept(shelf, "a", "x") == []
    assert kept(shelf, "a", "x", 100.0) == kept(shelf, "b", "y", 100.0) == []


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["put", "put", "put", "get", "drop", "wait"]),
        st.sampled_from("abcd"),
        st.integers(0, 12),
        st.integers(1, 400),
        st.integers(1, 50),
    ),
    max_size=200,
)


@given(STEPS)
def test_it_stays_within_its_bound_and_takes_from_nobody_who_has_less_than_his_share(steps):
    shelf, now_s = AnswerShelf(SIZE_MAX), 0.0
    own: dict[str, dict[str, tuple[int, float]]] = {name: {} for name in "abcd"}
    for what, tenant, number, size, ttl_s in steps:
        name = str(number)
        if what == "put":
            put(shelf, tenant, name, size=size, until_s=now_s + ttl_s, now_s=now_s)
            own[tenant][name] = (size, now_s + ttl_s)
        elif what == "get":
            shelf.get(tenant, name, now_s)
        elif what == "drop":
            shelf.drop(tenant, name)
            own[tenant].pop(name, None)
        else:
            now_s += ttl_s
        sizes = {one: sum(kept.size for kept in theirs.values()) for one, theirs in shelf._tenants.items()}
        assert sizes == shelf._sizes
        assert shelf._size == sum(sizes.values()) <= SIZE_MAX
        assert shelf._count == sum(map(len, shelf._tenants.values()))
        for one, theirs in own.items():
            live = {name: size for name, (size, until_s) in theirs.items() if until_s > now_s}
            theirs_now = {name: theirs[name] for name in live}
            if any(name not in shelf._tenants.get(one, {}) for name in live):
                # Whoever has lost something had more than an equal share with it.
                assert sum(live.values()) > SIZE_MAX / 4
                theirs_now = {name: pair for name, pair in theirs_now.items() if name in shelf._tenants.get(one, {})}
            own[one] = theirs_now


def test_marks_that_say_nothing_any_more_are_tidied_up():
    shelf = AnswerShelf(SIZE_MAX)
    for number in range(20 * SPARE_MARKS):
        put(shelf, "a", str(number % 20), until_s=1e9 + number)
    assert len(shelf._largest) <= 2 + SPARE_MARKS
    assert len(shelf._ends) <= 2 * 10 + SPARE_MARKS


async def test_a_shelf_of_very_many_tenants_is_no_slower_to_put_on():
    answers = MemoryAnswers(5000 * (ANSWER_COST_BYTES + 10))
    for number in range(5000):
        answers.put(str(number), "d", bytes(10), 60.0, 0.0)
    began_s = time.perf_counter()
    for number in range(5000, 10_000):
        answers.put(str(number), "d", bytes(10), 60.0, 0.0)
    assert (time.perf_counter() - began_s) / 5000 < 0.001, "looking at all tenants each time takes far longer"
    assert await answers.get("9999", "d", 0.0) is not None
    assert sum([await answers.get(str(number), "d", 0.0) is not None for number in range(10_000)]) == 5000


@pytest.mark.parametrize("ttl_s", [0.0, -1.0])
async def test_what_ends_at_once_is_not_kept(ttl_s):
    answers = MemoryAnswers()
    answers.put("a", "1", b"x", ttl_s, 0.0)
    assert await answers.get("a", "1", 0.0) is None
