"""A copy of the ledger is of one moment and sound, while a gateway writes; what is wrong with a file is found."""

import hashlib
import sqlite3
import stat

import pytest

from gateway.state.backup import back_up
from gateway.state.errors import StoreError
from gateway.state.soundness import find_faults
from tests.gateway.ledger.ledger_kit import Ledger, rows_of, total_of


def test_a_copy_that_is_made_under_load_is_of_one_moment(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.state.backup.PAGES_AT_ONCE", 8)
    ledger = Ledger(tmp_path / "home")
    for number in range(600):
        ledger.whole(f"gen-{number:06d}/1", number)
    assert ledger.store.flush(20.0)
    told = []

    def go_on(done: int, total: int) -> None:
        told.append((done, total))
        ledger.whole(f"gen-{len(told):06d}-late/1")
        assert ledger.store.flush(20.0)

    copy = back_up(ledger.path, tmp_path / "copy.db", go_on)
    assert ledger.close()
    assert len(told) > 3
    assert copy.rows == 600
    assert len(rows_of(copy.path)) == 600 < len(rows_of(ledger.path))
    assert total_of(copy.path).attempts == 600
    assert all(faults == [] for _, faults in find_faults(copy.path))
    assert hashlib.sha256(copy.path.read_bytes()).hexdigest() == copy.sha256
    assert (tmp_path / "copy.db.sha256").read_text() == f"{copy.sha256}  copy.db\n"
    assert stat.S_IMODE(copy.path.stat().st_mode) == 0o600
    assert not list(tmp_path.glob("*.part"))


def test_a_gateway_goes_on_with_a_copy_in_its_file_s_place(tmp_path):
    ledger = Ledger(tmp_path / "home")
    ledger.whole("gen-1/1")
    assert ledger.close()
    copy = back_up(ledger.path, tmp_path / "copy.db")
    for path in ledger.home.glob("mixgate.db*"):
        path.unlink()
    copy.path.rename(ledger.path)
    again = Ledger(tmp_path / "home")
    again.whole("gen-2/1")
    assert again.close()
    assert set(again.rows()) == {"gen-1/1", "gen-2/1"}


def test_no_copy_is_made_over_another_or_of_nothing_or_of_rubbish(tmp_path):
    (tmp_path / "there.db").write_bytes(b"")
    (tmp_path / "rubbish.db").write_bytes(b"rubbish" * 1000)
    with pytest.raises(StoreError, match="no backup is overwritten"):
        back_up(tmp_path / "rubbish.db", tmp_path / "there.db")
    for source in ("rubbish.db", "nothing.db"):
        with pytest.raises(StoreError):
            back_up(tmp_path / source, tmp_path / "copy.db")
    with pytest.raises(StoreError, match="cannot be written"):
        back_up(tmp_path / "rubbish.db", tmp_path / "no folder" / "copy.db")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["rubbish.db", "there.db"]


def test_nothing_that_lies_in_everybody_s_folder_is_written_through(tmp_path):
    """Somebody else has put there what a copy's names lead to, as anybody may in /tmp."""
    ledger = Ledger(tmp_path / "home")
    ledger.whole("gen-1/1")
    assert ledger.close()
    precious, left = tmp_path / "precious", tmp_path / "copy.db.part"
    precious.write_text("precious")
    left.symlink_to(precious)
    (tmp_path / "copy.db.sha256").symlink_to(precious)
    (tmp_path / "second.db.part").touch()
    (tmp_path / "second.db.part").chmod(0o666)
    for name in ("copy.db", "second.db"):
        made = back_up(ledger.path, tmp_path / name)
        checksum = tmp_path / f"{name}.sha256"
        for path in (made.path, checksum):
            assert not path.is_symlink()
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert checksum.read_text() == f"{made.sha256}  {name}\n"
    assert precious.read_text() == "precious"
    assert left.is_symlink()


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE entry SET cost_in_nusd = cost_in_nusd + 1 WHERE entry = 5",
        "DELETE FROM spend_day WHERE by = 'model'",
        "DELETE FROM entry WHERE entry = 7",
        "UPDATE spend_hour SET hour = hour + 1",
    ],
)
def test_sums_that_are_not_those_of_the_rows_are_found(tmp_path, change):
    ledger = Ledger(tmp_path)
    for number in range(20):
        ledger.whole(f"gen-{number}/1")
    assert ledger.close()
    assert all(faults == [] for _, faults in find_faults(ledger.path))
    with sqlite3.connect(ledger.path) as connection:
        connection.execute(change)
    connection.close()
    assert any("something else than is kept" in fault for _, faults in find_faults(ledger.path) for fault in faults)
