"""What became of Endpoints' Attempts, added up span by span, is what the rows say, wherever they lie by now."""

from collections import defaultdict
from contextlib import closing

import pytest

from bench.generated_ledger import DAY_S, fill, fill_spans, read_all
from gateway.observation import TTFT_BUCKETS
from gateway.state import span_reader
from gateway.state.connection import FILE_NAME, open_writer
from gateway.state.figures_reader import FiguresReader
from gateway.state.schema import SPANS
from gateway.state.span_reader import EndpointSpan
from gateway.state.writer import Writer

SINCE_S = 1_752_019_200
DAYS = 100
END_S = SINCE_S + DAYS * DAY_S
END = END_S // 60
ONE = "p2/model-3"
FAILED = "fail_connect + fail_server + fail_timeout + fail_mid"


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Minutes of a few days, hours before them, and days before those."""
    path = tmp_path_factory.mktemp("ledger") / FILE_NAME
    fill(path, 30_000, since_unix_s=SINCE_S, days=DAYS)
    fill_spans(path, END_S)
    writer = Writer(open_writer(path))
    while writer.prune_rest(float(END_S)):
        pass
    writer.close()
    with closing(read_all(path)) as connection:
        counts = [connection.execute(f"SELECT count(*) FROM {span}").fetchone()[0] for span in SPANS]  # noqa: S608
    assert all(counts)
    return path


@pytest.fixture
def reader(path):
    with closing(FiguresReader(path)) as reader:
        yield reader


def rows(path, first, end, endpoint):
    with closing(read_all(path)) as connection:
        for span in SPANS:
            yield from connection.execute(
                f"SELECT endpoint_id, minute, ok, {FAILED}, rate_limited, ttft_hist FROM {span} "  # noqa: S608
                "WHERE minute >= ? AND minute < ? AND (?3 IS NULL OR endpoint_id = ?3)",
                (first, end, endpoint),
            )


TIMES = [
    pytest.param(END - 30 * 1440, END, 0, None, id="all in one"),
    pytest.param(END - 5, END, 0, None, id="minutes"),
    pytest.param(END - 95 * 1440, END, 1440, None, id="by day, from all tables"),
    pytest.param(END - 95 * 1440 + 77, END - 333, 1440, None, id="by day, begun and not over"),
    pytest.param(END - 9 * 1440, END, 60, ONE, id="one by hour"),
    pytest.param(END - 600, END, 1, ONE, id="one by minute"),
    pytest.param(END + 5, END + 500, 60, None, id="after all"),
    pytest.param(0, 1000, 1440, None, id="before all"),
    pytest.param(END - 30 * 1440, END, 0, "nobody' --", id="of nobody"),
]


@pytest.mark.parametrize(("first", "end", "width", "endpoint"), TIMES)
def test_spans_are_what_their_rows_add_up_to(reader, path, first, end, width, endpoint):
    sums = defaultdict(lambda: (0, 0, 0))
    for name, minute, *counts, _ in rows(path, first, end, endpoint):
        place = (minute // width if width else 0, name)
        sums[place] = tuple(map(sum, zip(sums[place], counts, strict=True)))
    expected = [EndpointSpan(name, span, *sums[span, name]) for span, name in sorted(sums)]
    assert [*reader.endpoint_spans(first, end, width, endpoint=endpoint)] == expected


@pytest.mark.parametrize(("first", "end", "width", "endpoint"), TIMES)
def test_histograms_are_what_their_rows_add_up_to(reader, path, first, end, width, endpoint):
    sums = defaultdict(lambda: [0] * TTFT_BUCKETS)
    for name, minute, *_, data in rows(path, first, end, endpoint):
        place = (name, minute // width if width else 0)
        lanes = [int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4)]
        sums[place] = [*map(sum, zip(sums[place], lanes, strict=True))]
    assert reader.histograms(first, end, width, endpoint=endpoint) == sums


def test_of_too_many_histograms_each_endpoint_has_its_newest(reader, path, monkeypatch):
    monkeypatch.setattr(span_reader, "HISTOGRAMS_MAX", 72 * 2)
    found = reader.histograms(END - 3 * 1440, END, 0)
    counted = defaultdict(int)
    for name, *_ in rows(path, END - 3 * 1440, END, None):
        counted[name] += 1
    each = sum(at % 7 for at in range(TTFT_BUCKETS))
    assert {name: sum(lanes) for (name, _), lanes in found.items()} == {
        name: each * min(2, count) for name, count in counted.items()
    }


def test_of_too_many_spans_the_newest_come(reader, monkeypatch):
    whole = reader.endpoint_spans(END - 20 * 1440, END, 1440)
    monkeypatch.setattr(span_reader, "DAYS_ROWS_MAX", 100)
    assert reader.endpoint_spans(END - 20 * 1440, END, 1440) == tuple(
        sorted(sorted(whole, key=lambda one: (-one.span, one.endpoint))[:100], key=lambda one: (one.span, one.endpoint))
    )


def test_a_new_store_has_none(tmp_path):
    open_writer(tmp_path / FILE_NAME).close()
    with closing(FiguresReader(tmp_path / FILE_NAME)) as reader:
        assert reader.endpoint_spans(0, END, 1440) == ()
        assert reader.histograms(0, END, 0) == {}
