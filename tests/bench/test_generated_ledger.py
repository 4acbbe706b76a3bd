"""Generated ledgers are what the gateway would have written, row by row."""

from contextlib import closing

import pytest

from bench.generated_ledger import APPS, DAYS, KEYS, MODELS, PROVIDERS, USERS, fill, fill_spans, read_all
from gateway.state.connection import open_writer
from gateway.state.entries import ENTRY_COLUMNS, Batch
from gateway.state.schema import SPANS
from gateway.state.writer import Writer

ROWS = 5000
SINCE_S = 1_752_000_000
NOT_OF_ROWS = ("sqlite_", "endpoint_", "decision_", "outbox")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "mixgate.db"
    fill(path, ROWS, since_unix_s=SINCE_S, at_once=1500)
    return path


def tables(path):
    """All that the file holds of its rows."""
    with closing(read_all(path)) as connection:
        names = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        return {
            name: sorted(connection.execute(f"SELECT * FROM {name}"), key=repr)  # noqa: S608
            for name in names
            if not name.startswith(NOT_OF_ROWS)
        }


def test_all_that_is_added_up_is_what_the_gateway_makes_of_the_same_rows(made, tmp_path):
    with closing(read_all(made)) as connection:
        rows = connection.execute(f"SELECT {', '.join(ENTRY_COLUMNS)} FROM entry ORDER BY entry").fetchall()  # noqa: S608
    writer = Writer(open_writer(tmp_path / "mixgate.db"))
    for first in range(0, ROWS, 77):
        writer.write_ledger(Batch(rows[first : first + 77], ()))
    while writer.prune_rest(float(SINCE_S)):
        pass
    writer.close()
    found = tables(made)
    assert found == tables(tmp_path / "mixgate.db")
    assert len(found["entry"]) == ROWS
    assert all(found[name] for name in ("spend_hour", "spend_day", "request_hour", "entry_stretch"))


def test_the_same_numbers_give_the_same_rows_and_another_seed_others(made, tmp_path):
    fill(tmp_path / "again.db", ROWS, since_unix_s=SINCE_S)
    fill(tmp_path / "other.db", ROWS, since_unix_s=SINCE_S, seed=1)
    assert tables(tmp_path / "again.db") == tables(made)
    assert tables(tmp_path / "other.db")["spend_day"] != tables(made)["spend_day"]


@pytest.mark.parametrize("far", [0, 10_000_000, 1_000_000_000], ids=["first", "last of ten million", "far beyond"])
def test_every_name_occurs_wherever_one_looks(tmp_path, far):
    fill(tmp_path / "far.db", 30_000, since_unix_s=SINCE_S, seed=far)
    wanted = {"key_id": KEYS, "model": MODELS, "provider": PROVIDERS, "endpoint": MODELS * PROVIDERS, "app": APPS + 1}
    wanted |= {"model || outcome": 3 * MODELS, "provider || tags": 3 * PROVIDERS}
    with closing(read_all(tmp_path / "far.db")) as connection:
        for column, count in (wanted | {"tags": 3, "outcome": 3}).items():
            counts = [n for (n,) in connection.execute(f"SELECT count(*) FROM entry GROUP BY {column}")]  # noqa: S608
            assert len(counts) == count
            assert min(counts) > 30, column
        pairs = connection.execute("SELECT count(DISTINCT key_id || model || (app = '') || tags) FROM entry")
        assert pairs.fetchone()[0] > 0.95 * KEYS * MODELS * 2 * 3
        assert connection.execute("SELECT count(DISTINCT user) FROM entry").fetchone()[0] > USERS * 0.9


def test_rows_lie_in_all_of_the_time_and_endpoints_have_their_spans(tmp_path):
    fill(tmp_path / "spans.db", ROWS, since_unix_s=SINCE_S)
    fill_spans(tmp_path / "spans.db", SINCE_S + DAYS * 86_400)
    with closing(read_all(tmp_path / "spans.db")) as connection:
        assert connection.execute("SELECT count(DISTINCT unix_us / 86400000000) FROM entry").fetchone()[0] in {90, 91}
        sums = [f"SELECT sum(ok + fail_server) FROM {span}" for span in SPANS[:2]]  # noqa: S608
        counts = [connection.execute(one).fetchone()[0] for one in sums]
    assert all(counts)
    assert sum(counts) <= ROWS
