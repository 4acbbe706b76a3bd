"""Rows that are read from a journal while it is written are those that were settled, each once, in their order."""

import random

import pytest

from gateway.ledger.books import Books
from gateway.ledger.costs import Ending
from gateway.ledger.entry import Intent, head_of
from gateway.ledger.journal import Journal
from gateway.ledger.journal_tail import JournalTail, TailError
from gateway.state.entries import Batch, Place
from providers.messages import Usage
from tests.gateway.ledger.ledger_kit import TARIFF

CASES = 40
SEGMENT_BYTES = 8 * 1024
START = (1, 0)


class Written:
    """A journal with books over it, and the rows that they would have the store write."""

    failure = None

    def __init__(self, folder, segment_bytes=SEGMENT_BYTES):
        self.journal = Journal(folder, segment_bytes=segment_bytes, spares=6)
        self.books = Books(self.journal, self)
        self.books.start()
        self.rows = []
        self._next = 0

    def wake(self):
        pass

    def attach(self, outbox):
        self.outbox = outbox

    def begin(self, tags=()):
        self._next += 1
        intent = Intent(f"gen-{self._next}/1", self._next, "k", "r", "m", "p/m", "p", "chat", True, "", 9, tags=tags)
        self.books.begin(head_of(intent), tags, TARIFF)
        return intent.attempt_id

    def end(self, attempt_id):
        self.books.end(attempt_id, Ending(unix_us=7, outcome="ok", usage=Usage(input_tokens=3, output_tokens=4)))

    def taken(self):
        """Rows that wait in memory, which are written then."""
        rows = []
        while True:
            with self.outbox.batch(1000) as batch:
                assert isinstance(batch, Batch)
            if not batch.rows:
                return rows
            rows += [tuple(row) for row in batch.rows]

    def place(self, start=START):
        return Place(start, self.journal.position, {})


def random_day(written, dice):
    """Attempts that begin and end in any order, over several files."""
    running = []
    for _ in range(dice.randrange(1, 60)):
        if running and dice.random() < 0.5:
            written.end(running.pop(dice.randrange(len(running))))
        else:
            running.append(written.begin(dice.choice(((), ("a",), ("a", "ü")))))
    for one in running[: dice.randrange(len(running) + 1)]:
        written.end(one)


def test_rows_are_those_that_wait_in_memory_however_many_are_asked_for(tmp_path):
    for case in range(CASES):
        dice = random.Random(case)
        written = Written(tmp_path / str(case))
        tail, place, found = JournalTail(written.journal.folder), written.place(), []
        for _ in range(3):
            random_day(written, dice)
            place.end = written.journal.position
            while rows := tail.rows(place, dice.choice((1, 2, 1000))):
                found += [tuple(row) for row in rows]
                if dice.random() < 0.2:
                    tail = JournalTail(written.journal.folder)  # as another process
            assert place.start == place.end
        counts = place.counts
        assert found == written.taken(), case
        assert sum(counts.values()) == len(found)
        tail.close()
        written.books.close()


def test_what_was_read_and_not_written_is_read_again(tmp_path):
    written = Written(tmp_path)
    for _ in range(10):
        written.end(written.begin())
    tail = JournalTail(written.journal.folder)
    place = written.place()
    first = tail.rows(place, 4)
    behind = place.start
    assert tail.rows(written.place(), 4) == first
    assert len(tail.rows(written.place(behind), 100)) == 6
    tail.close()
    written.books.close()


def test_a_file_that_is_gone_had_nothing_that_was_not_written_but_the_last_one_must_be_there(tmp_path):
    written = Written(tmp_path)
    while written.journal.position[0] < 3:
        written.end(written.begin())
    place = written.place()
    for path in sorted(tmp_path.glob("*.journal"))[:1]:
        path.unlink()
    rows = JournalTail(tmp_path).rows(place, 1000)
    assert rows
    assert 1 not in place.counts
    with pytest.raises(FileNotFoundError):
        JournalTail(tmp_path).rows(Place((99, 0), (99, 100), {}), 1000)
    written.books.close()


@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_a_record_that_does_not_say_what_was_written_is_an_error_and_no_end(tmp_path, at):
    written = Written(tmp_path, segment_bytes=256 * 1024)
    for _ in range(50):
        written.end(written.begin())
    place = written.place()
    path = min(tmp_path.glob("*.journal"))
    with path.open("r+b") as file:
        file.seek(int(place.end[1] * at))
        file.write(b"\xff" * 20)
    with pytest.raises(TailError):
        JournalTail(tmp_path).rows(place, 1000)
    written.books.close()
