import re

from gateway.server import ids
from gateway.server.ids import GenerationIds


def test_ids_never_repeat_and_sort_by_the_time_they_were_minted():
    mint = GenerationIds().mint
    minted = [mint() for _ in range(20_000)]
    assert len(set(minted)) == len(minted)
    assert minted == sorted(minted)
    assert all(re.fullmatch(r"gen-[0-7][0-9A-HJKMNP-TV-Z]{25}", one) for one in minted)


def test_ids_stay_in_order_when_the_clock_stands_still_or_goes_back(monkeypatch):
    monkeypatch.setattr(ids, "_COUNTER_MAX", 2**19 + 50)
    moments = iter([5_000_000, *[5_000_000] * 60, *[1_000_000] * 60, 7_000_000])
    monkeypatch.setattr(ids.time, "time_ns", lambda: next(moments))
    minting = GenerationIds()
    minted = [minting.mint() for _ in range(122)]
    assert minted == sorted(set(minted))
