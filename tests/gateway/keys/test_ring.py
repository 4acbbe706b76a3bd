"""Issued keys: their text, who they belong to, and what they may use."""

import re
import secrets
import statistics
import time
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config.secrets import looks_like_key
from gateway.errors import InvalidRequestError
from gateway.keys import credential
from gateway.keys.changes import Change, NewKey, change, create, delete, rotate
from gateway.keys.credential import ENTROPY_BYTES, digest_of, is_key, mint, public_id
from gateway.keys.key import KEYS_MAX, KeyLimits, KeyRecord, hash_of
from gateway.keys.ring import Grants, KeyRing
from gateway.keys.storage import record_of, row_of
from gateway.state.errors import DamagedStoreError

PEPPER = b"pepper" * 6
NOW = 1_795_348_800_000_000
HOUR = 3_600_000_000


def issue(ring, name="one", now=NOW, **wish):
    issued = create(ring, PEPPER, NewKey(name=name, **wish), entropy=secrets.token_bytes(ENTROPY_BYTES), now_us=now)
    ring.put(issued.record)
    return issued.record, issued.text.reveal().encode()


@given(st.binary(min_size=ENTROPY_BYTES, max_size=ENTROPY_BYTES))
def test_a_key_is_recognised_offline_and_every_typo_in_it_too(entropy):
    text = mint(entropy).text.reveal()
    assert re.fullmatch(r"mg-[0-9A-Za-z]{57}", text)
    assert is_key(text)
    assert looks_like_key(f"key={text}.")
    assert public_id(text.encode()) == mint(entropy).id
    place = 3 + entropy[0] % 57
    other = "A" if text[place] != "A" else "B"
    assert not is_key(text[:place] + other + text[place + 1 :])


@given(st.text() | st.text("mg-0aZ", max_size=70))
def test_other_text_is_no_key(text):
    assert not is_key(text)


def test_keys_are_as_random_as_their_bytes():
    texts = {
        mint(bytes(place) + bytes([value]) + bytes(39 - place)).text.reveal() for place in range(40) for value in (1, 2)
    }
    assert len(texts) == 80


def test_a_key_belongs_to_whom_it_was_issued():
    ring = KeyRing(PEPPER)
    record, text = issue(ring)
    assert ring.find(text, NOW) == record
    assert ring.has_keys
    assert ring.get_by_hash(record.hash) == ring.get(record.id) == record


@pytest.mark.parametrize(
    "wrong",
    [
        lambda text: text[:-1] + (b"0" if text[-1:] != b"0" else b"1"),
        lambda text: text[:11] + (b"0" if text[11:12] != b"0" else b"1") + text[12:],
        lambda _: b"mg-" + b"Z" * 57,
        lambda text: text + b"\n",
        lambda text: text.upper(),
        lambda text: text[:3],
        lambda _: b"",
        lambda _: b"\xff" * 60,
        lambda text: digest_of(PEPPER, text),
        lambda text: digest_of(PEPPER, text).hex().encode(),
        lambda text: hash_of(text[3:11].decode()).encode(),
    ],
)
def test_anything_else_belongs_to_nobody(wrong):
    ring = KeyRing(PEPPER)
    text = issue(ring)[1]
    assert ring.find(wrong(text), NOW) is None
    assert ring.why_refused(wrong(text), NOW) is None


def test_nobody_has_the_digest_of_nothing():
    ring = KeyRing(PEPPER)
    with mock.patch("gateway.keys.ring.digest_of", return_value=bytes(32)):
        assert ring.find(b"mg-" + b"0" * 57, NOW) is None


def test_unknown_ids_and_wrong_secrets_take_the_same_work():
    ring = KeyRing(PEPPER)
    text = issue(ring)[1]
    unknown, wrong = b"mg-ZZZZZZZZ" + text[11:], text[:20] + b"0" * 40
    calls = []
    for credential_ in (text, unknown, wrong, b"short"):
        with (
            mock.patch("gateway.keys.ring.digest_of", side_effect=credential.digest_of) as digests,
            mock.patch("gateway.keys.ring.hmac.compare_digest", return_value=False) as compares,
        ):
            ring.find(credential_, NOW)
        calls.append((digests.call_count, compares.call_count, {len(one.args[0]) for one in compares.call_args_list}))
    assert calls == [(1, 2, {32})] * 4


def test_looking_for_a_key_takes_microseconds():
    ring = KeyRing(PEPPER)
    text = [issue(ring, str(number))[1] for number in range(200)][100]

    def batch():
        start = time.process_time()
        for _ in range(500):
            ring.find(text, NOW)
        return (time.process_time() - start) / 500

    assert statistics.median(batch() for _ in range(9)) < 60e-6  # ten times what it takes: machines differ


def test_both_texts_are_good_until_the_overlap_ends():
    ring = KeyRing(PEPPER)
    record, old = issue(ring)
    issued = rotate(record, PEPPER, entropy=secrets.token_bytes(ENTROPY_BYTES), overlap_s=3600, now_us=NOW)
    ring.put(issued.record)
    new = issued.text.reveal().encode()
    assert ring.find(old, NOW + HOUR - 1).id == ring.find(new, NOW).id == record.id
    assert ring.find(old, NOW + HOUR) is None
    assert ring.find(new, NOW + HOUR) is not None
    again = rotate(issued.record, PEPPER, entropy=secrets.token_bytes(ENTROPY_BYTES), overlap_s=0, now_us=NOW)
    ring.put(again.record)
    assert ring.find(old, NOW) is ring.find(new, NOW) is None


def test_a_key_that_is_not_good_says_why_to_its_holder_alone():
    ring = KeyRing(PEPPER)
    record, text = issue(ring, expires_us=NOW + HOUR)
    assert ring.find(text, NOW + HOUR - 1) is not None
    assert ring.find(text, NOW + HOUR) is None
    assert ring.why_refused(text, NOW + HOUR) == "expired"
    ring.put(change(ring, record, Change(disabled=True), now_us=NOW))
    assert ring.find(text, NOW) is None
    assert ring.why_refused(text, NOW) == "disabled"
    ring.put(change(ring, ring.get(record.id), Change(disabled=False, expires_us=None), now_us=NOW))
    assert ring.find(text, NOW + 10 * HOUR) is not None


def test_a_deleted_key_leaves_its_name_behind_and_nothing_to_match():
    ring = KeyRing(PEPPER)
    record, text = issue(ring)
    gone = delete(record, now_us=NOW + 1)
    ring.put(gone)
    assert ring.find(text, NOW) is None
    assert ring.get(record.id).name == "one"
    assert gone.digest == gone.previous_digest == b""
    assert not ring.has_keys
    assert delete(gone, now_us=NOW + 9).deleted_us == NOW + 1
    for act in (
        lambda: change(ring, gone, Change(name="x"), now_us=NOW),
        lambda: rotate(gone, PEPPER, entropy=bytes(40), overlap_s=0, now_us=NOW),
    ):
        with pytest.raises(InvalidRequestError, match="deleted"):
            act()


def test_what_happens_to_a_team_happens_to_all_in_it():
    ring = KeyRing(PEPPER)
    team, team_text = issue(ring, "team")
    inner, _ = issue(ring, "inner", parent=team.id)
    _, text = issue(ring, "child", parent=inner.id)
    assert ring.find(text, NOW) is not None
    for gone in (
        change(ring, team, Change(disabled=True), now_us=NOW),
        change(ring, team, Change(expires_us=NOW + 1), now_us=NOW),
        delete(team, now_us=NOW),
    ):
        ring.put(gone)
        assert ring.find(text, NOW + 1) is None
        assert ring.find(team_text, NOW + 1) is None
        assert ring.why_refused(text, NOW + 1) is not None
        ring.put(team)
        assert ring.find(text, NOW + 1) is not None


def test_a_key_whose_team_is_missing_is_refused():
    ring = KeyRing(PEPPER)
    record, text = issue(ring)
    ring.put(KeyRecord(**{name: getattr(record, name) for name in record.__struct_fields__} | {"parent": "missing0"}))
    assert ring.find(text, NOW) is None


def test_a_key_may_use_what_all_above_it_may():
    ring = KeyRing(PEPPER)
    limits = KeyLimits(models=("m", "n"), providers=("p",), input_max_in_pusd=5, data="no_training")
    team, _ = issue(ring, "team", limits=limits)
    record, _ = issue(ring, "child", parent=team.id, limits=KeyLimits(models=("n",), input_max_in_pusd=9))
    other, _ = issue(ring, "other", parent=team.id, limits=KeyLimits(output_max_in_pusd=1, data="nothing_kept"))
    assert ring.grants(record.id) == Grants(("n",), ("p",), 5, None, "no_training")
    assert ring.grants(other.id) == Grants(("m", "n"), ("p",), 5, 1, "nothing_kept")
    ring.put(change(ring, team, Change(limits=KeyLimits(models=("m",))), now_us=NOW))
    assert ring.grants(record.id).models == ()
    assert ring.grants("unknown0") == Grants((), ())


@pytest.mark.parametrize(
    ("wish", "param"),
    [
        ({"limits": KeyLimits(models=("m", "x"))}, "models"),
        ({"limits": KeyLimits(providers=("x",))}, "providers"),
        ({"parent": "missing0"}, "parent"),
        ({"name": ""}, "name"),
        ({"name": "  "}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"name": "a\x1b[2Jb"}, "name"),
        ({"name": "a\u202eb"}, "name"),
        ({"name": "team"}, "name"),
        ({"name": mint(bytes(40)).text.reveal()}, "name"),
        ({"expires_us": NOW}, "expires_at"),
        ({"limits": KeyLimits(day_in_nusd=-1)}, "budget.day"),
        ({"limits": KeyLimits(ever_in_nusd=10**18 + 1)}, "budget.ever"),
        ({"limits": KeyLimits(requests_per_min=-1)}, "requests_per_min"),
        ({"limits": KeyLimits(concurrency=10**9 + 1)}, "concurrency"),
        ({"limits": KeyLimits(models=("m",) * 257)}, "models"),
        ({"limits": KeyLimits(data="all")}, "data"),
    ],
)
def test_a_child_is_never_granted_more_than_its_team_has(wish, param):
    ring = KeyRing(PEPPER)
    team, _ = issue(ring, "team", limits=KeyLimits(models=("m", "n"), providers=("p",)))
    with pytest.raises(InvalidRequestError) as caught:
        issue(ring, **({"name": "child", "parent": team.id} | wish))
    assert caught.value.param == param
    child, _ = issue(ring, "child", parent=team.id)
    if "limits" in wish:
        with pytest.raises(InvalidRequestError):
            change(ring, child, Change(limits=wish["limits"]), now_us=NOW)


def test_teams_are_not_endlessly_inside_one_another():
    ring = KeyRing(PEPPER)
    parent = None
    for depth in range(5):
        parent = issue(ring, str(depth), parent=parent)[0].id
    with pytest.raises(InvalidRequestError, match="inside one another"):
        issue(ring, "one more", parent=parent)
    assert len(ring.chain(parent)) == 5


def test_there_is_an_end_to_keys():
    ring = KeyRing(PEPPER)
    with mock.patch.object(ring, "records", return_value=[None] * KEYS_MAX):
        with pytest.raises(InvalidRequestError, match=str(KEYS_MAX)):
            issue(ring)


def test_a_record_is_the_same_after_it_was_stored():
    ring = KeyRing(PEPPER)
    record, _ = issue(ring, limits=KeyLimits(models=("m",), week_in_nusd=7, data="no_training"), expires_us=NOW + 1)
    assert record_of(row_of(record)) == record
    row = row_of(record)
    with pytest.raises(DamagedStoreError):
        record_of(type(row)(**{name: getattr(row, name) for name in row.__struct_fields__} | {"limits": "{"}))


def test_neither_keys_nor_digests_are_printed():
    ring = KeyRing(PEPPER)
    record, text = issue(ring)
    issued = rotate(record, PEPPER, entropy=secrets.token_bytes(ENTROPY_BYTES), overlap_s=0, now_us=NOW)
    for shown in (repr(record), str(record), repr(ring), repr(row_of(record)), repr(issued), f"{issued.text}"):
        assert text.decode()[11:] not in shown
        assert issued.text.reveal()[11:] not in shown
        assert repr(record.digest)[2:-1] not in shown
        assert repr(PEPPER)[2:-1] not in shown
