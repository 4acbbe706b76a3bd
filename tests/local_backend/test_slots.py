from hypothesis import given
from hypothesis import strategies as st

from local_backend.slots import Slot, common_prefix, place

tokens = st.lists(st.integers(0, 2), max_size=30)


@given(tokens, tokens)
def test_the_common_prefix_is_what_a_loop_would_find(left, right):
    count = 0
    while count < min(len(left), len(right)) and left[count] == right[count]:
        count += 1
    assert common_prefix(left, right) == count


@given(st.lists(st.tuples(tokens, st.booleans()), min_size=1, max_size=5), st.lists(st.integers(0, 2), min_size=1))
def test_a_placement_is_free_and_shares_only_what_is_really_there(held, prompt):
    slots = [Slot(number, kept, busy=busy, used_at=number) for number, (kept, busy) in enumerate(held)]
    placement = place(prompt, slots)
    if all(slot.busy for slot in slots):
        assert placement is None
        return
    assert not slots[placement.slot].busy
    assert placement.shared_tokens < len(prompt)
    assert slots[placement.donor].tokens[: placement.shared_tokens] == prompt[: placement.shared_tokens]


def test_a_conversation_goes_on_in_the_slot_it_was_in():
    slots = [Slot(0, [9, 9, 9]), Slot(1, [1, 2, 3, 4], used_at=5)]
    placement = place([1, 2, 3, 4, 5, 6], slots)
    assert (placement.slot, placement.donor, placement.shared_tokens) == (1, 1, 4)


def test_a_long_conversation_is_not_overwritten_by_one_that_only_begins_alike():
    slots = [Slot(0, [1, 2, 3, 4, 5, 6, 7, 8], used_at=5), Slot(1, [], used_at=1)]
    placement = place([1, 2, 9], slots)
    assert (placement.slot, placement.donor, placement.shared_tokens) == (1, 0, 2)


def test_a_running_neighbour_lends_its_prompt():
    slots = [Slot(0, [1, 2, 3], busy=True), Slot(1, [])]
    placement = place([1, 2, 3, 4], slots)
    assert (placement.slot, placement.donor, placement.shared_tokens) == (1, 0, 3)
