"""Spending over time, line by line, is what the roll-ups say, however few of their rows are read for it."""

from collections import defaultdict
from contextlib import closing

import pytest

from bench.generated_ledger import DAY_S, fill, read_all
from gateway.state import series_reader
from gateway.state.connection import FILE_NAME, open_writer
from gateway.state.entries import ENTRY_COLUMNS, Batch
from gateway.state.figures_reader import FiguresReader
from gateway.state.schema import SPENT_COLUMNS
from gateway.state.writer import Writer

SINCE_S = 1_752_019_200
DAYS = 12
ROWS = 12_000
COST, ATTEMPTS = SPENT_COLUMNS.index("cost_in_nusd"), SPENT_COLUMNS.index("attempts")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("ledger") / FILE_NAME
    fill(path, ROWS, since_unix_s=SINCE_S, days=DAYS)
    return path


@pytest.fixture
def reader(path):
    with closing(FiguresReader(path)) as reader:
        yield reader


def expected(path, by, step, first, end, names_max):
    """The same from all rows of the roll-up, one by one."""
    with closing(read_all(path)) as connection:
        rows = connection.execute(
            f"SELECT {step}, name, {', '.join(SPENT_COLUMNS)} FROM spend_{step} "  # noqa: S608
            f"WHERE by = ? AND {step} >= ? AND {step} < ?",
            (by, first, end),
        ).fetchall()
    total = defaultdict(lambda: (0, 0))
    for _, name, *sums in rows:
        total[name] = (total[name][0] + sums[COST], total[name][1] + sums[ATTEMPTS])
    most = sorted(total, key=lambda name: (-total[name][0], -total[name][1], name))[:names_max]
    found = defaultdict(lambda: [0] * len(SPENT_COLUMNS))
    for at, name, *sums in rows:
        line = (at, name not in most, name if name in most else "")
        found[line] = [one + other for one, other in zip(found[line], sums, strict=True)]
    return sorted(
        ((*line, *sums) for line, sums in found.items()), key=lambda row: (*row[:2], -row[3 + COST], -row[3 + ATTEMPTS])
    )


def told(found):
    return [
        (one.step, one.rest, one.spent.name, *(getattr(one.spent, name) for name in SPENT_COLUMNS)) for one in found
    ]


@pytest.mark.parametrize("by", ["model", "endpoint", "key", "app", "tag", "all"])
@pytest.mark.parametrize("names_max", [1, 3, 100])
@pytest.mark.parametrize(
    ("step", "first", "end"),
    [
        ("day", 0, 1 << 40),
        ("day", SINCE_S // DAY_S + 2, SINCE_S // DAY_S + 5),
        ("hour", SINCE_S // 3600 + 5, SINCE_S // 3600 + 5 + 24 * 4),
        ("hour", SINCE_S // 3600 + 24, SINCE_S // 3600 + 72),
        ("hour", SINCE_S // 3600 + 30, SINCE_S // 3600 + 33),
        ("hour", SINCE_S // 3600 - 50, SINCE_S // 3600 - 20),
    ],
    ids=["all days", "some days", "over midnights", "whole days of hours", "within a day", "before all"],
)
def test_lines_and_the_rest_are_what_the_roll_ups_say(reader, path, by, names_max, step, first, end):
    end = min(end, SINCE_S // DAY_S + 1000) if step == "day" else end
    first = max(first, SINCE_S // DAY_S - 10) if step == "day" else first
    found = reader.spend_series(by, step, first, end, name=None, names_max=names_max)
    assert told(found) == expected(path, by, step, first, end, names_max)


def test_one_name_stands_alone(reader, path):
    found = reader.spend_series("app", "day", 0, SINCE_S // DAY_S + 3, name="app 7", names_max=8)
    with closing(read_all(path)) as connection:
        days = connection.execute("SELECT day, attempts FROM spend_day WHERE by = 'app' AND name = 'app 7' ORDER BY 1")
        assert [(one.step, one.spent.attempts) for one in found] == days.fetchall()[: len(found)]
    assert found
    assert not any(one.rest for one in found)
    assert reader.spend_series("app", "day", 0, SINCE_S // DAY_S + 3, name="' OR 1 --", names_max=8) == ()


def test_rows_that_come_in_the_middle_of_a_look_up_are_in_the_next_one(tmp_path, monkeypatch):
    path = tmp_path / FILE_NAME
    fill(path, 500, since_unix_s=SINCE_S, days=1)
    hours = (SINCE_S // 3600, SINCE_S // 3600 + 24)
    with closing(read_all(path)) as connection:
        rows = connection.execute(f"SELECT {', '.join(ENTRY_COLUMNS)} FROM entry").fetchall()  # noqa: S608
    before = expected(path, "key", "hour", *hours, 2)
    lines = FiguresReader._lines

    def write_meanwhile(reader, *asked):
        found = lines(reader, *asked)
        writer = Writer(open_writer(path))
        writer.write_ledger(Batch([(f"gen-new{row[0]}", *row[1:]) for row in rows], ()))
        writer.abandon()
        return found

    open_writer(path).close()  # the file of a gateway has its write-ahead log
    with closing(FiguresReader(path)) as reader:
        with monkeypatch.context() as patched:
            patched.setattr(FiguresReader, "_lines", write_meanwhile)
            assert told(reader.spend_series("key", "hour", *hours, name=None, names_max=2)) == before
        after = told(reader.spend_series("key", "hour", *hours, name=None, names_max=2))
    assert after == expected(path, "key", "hour", *hours, 2) != before


def test_of_too_many_rows_one_more_comes_than_may(reader, monkeypatch):
    monkeypatch.setattr(series_reader, "SERIES_ROWS_MAX", 10)
    found = reader.spend_series("key", "day", SINCE_S // DAY_S, SINCE_S // DAY_S + 20, name=None, names_max=8)
    assert len(found) == 11
