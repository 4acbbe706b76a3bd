"""What requests come to is what adding all rows up would give, however they come in."""

import random

from gateway.state.connection import open_writer
from gateway.state.entries import ENTRY_COLUMNS, Batch
from gateway.state.request_rows import COST_BOUNDS_IN_NUSD, FREE, HOUR_US, UNKNOWN, count_requests
from gateway.state.schema import MIGRATIONS, migrate
from gateway.state.writer import Writer

CASES = 40


def row(dice, request, number):
    """An Attempt with anything that counts here."""
    outcome = dice.choice(("ok", "failed", "cancelled"))
    facts = dict.fromkeys(ENTRY_COLUMNS, 0) | {
        "attempt_id": f"gen-{request:04d}/{number}",
        "unix_us": 1_700_000_000_000_000 + request * 700_000_000 + number * dice.randrange(1_500_000_000),
        "endpoint": f"p{dice.randrange(2)}/m",
        "outcome": outcome,
        "stream": dice.randrange(2),
        "ttft_ms": dice.choice((None, 100)),
        "cost_in_nusd": dice.choice((None, 0, 1, 999, 1000, 1001, dice.randrange(10**12))),
    }
    texts = ("key_id", "route", "model", "provider", "surface", "price_id", "app", "referer", "user", "session", "tags")
    facts |= dict.fromkeys((*texts, "usage_source", "cost_source"), "")
    return tuple(facts[name] for name in ENTRY_COLUMNS)


def bucket_of(costs):
    if None in costs:
        return UNKNOWN
    total = sum(costs)
    return FREE if total == 0 else 1 + sum(total >= bound for bound in COST_BOUNDS_IN_NUSD)


def expected(rows):
    """By plain counting."""
    requests = {}
    for one in rows:
        facts = dict(zip(ENTRY_COLUMNS, one, strict=True))
        requests.setdefault(facts["attempt_id"].partition("/")[0], []).append(facts)
    found = {}

    def add(key, cost):
        before = found.get(key, (0, 0))
        found[key] = (before[0] + 1, before[1] + cost)

    for tries in requests.values():
        hour = min(one["unix_us"] for one in tries) // HOUR_US
        costs = [one["cost_in_nusd"] for one in tries]
        add(("cost", hour, bucket_of(costs)), sum(cost or 0 for cost in costs))
        failed = [one for one in tries if one["outcome"] == "failed"]
        if failed and any(one["outcome"] == "ok" for one in tries):
            cut = any(one["stream"] and one["ttft_ms"] is not None for one in failed)
            moved = len({one["endpoint"] for one in tries}) > 1
            what = "rescue" if cut else "failover" if moved else "retry"
            add((what, hour, 0), sum(one["cost_in_nusd"] or 0 for one in failed))
    return found


def counted(connection):
    rows = connection.execute("SELECT * FROM request_hour WHERE requests <> 0 OR cost_in_nusd <> 0").fetchall()
    return {tuple(row[:3]): tuple(row[3:]) for row in rows}


def test_sums_are_those_of_all_rows_in_any_order_and_any_batches(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.state.request_rows.SEVERAL_MAX", 5)
    for case in range(CASES):
        dice = random.Random(case)
        rows = [
            row(dice, request, number) for request in range(30) for number in range(1, 1 + dice.choice((1, 1, 1, 2, 4)))
        ]
        dice.shuffle(rows)
        connection, another = (open_writer(tmp_path / f"{case}.db") for _ in range(2))
        writer, other = Writer(connection), Writer(another)
        at = 0
        while at < len(rows):
            count = dice.choice((1, 1, 2, 5, 30))
            writer.write_ledger(Batch(rows[at : at + count], ()))
            again = rows[max(0, at - 3) : at]  # what was handed over before changes nothing
            writer.write_ledger(Batch(again, ()))
            if dice.randrange(4) == 0:
                writer = Writer(writer._connection)  # as another process: what was written before, nobody remembers
            if dice.randrange(4) == 0:
                writer, other = other, writer  # they write in turn, and what one remembers is not all
            at += count
        assert counted(connection) == expected(rows), case
        connection.close()
        another.close()


def test_rows_of_a_file_from_before_are_counted_by_and_by(tmp_path):
    dice = random.Random(1)
    rows = [row(dice, request, number) for request in range(200) for number in range(1, dice.choice((2, 3)))]
    connection = open_writer(tmp_path / "old.db")
    writer = Writer(connection)
    writer.write_ledger(Batch(rows, ()))
    before = next(
        version for version, one in enumerate(MIGRATIONS) if any("request_hour" in text for text in one.forward)
    )
    migrate(connection, before)
    migrate(connection)
    assert counted(connection) == {}
    while count_requests(connection, 7):
        assert len(counted(connection)) > 0
    assert counted(connection) == expected(rows)
    connection.close()
