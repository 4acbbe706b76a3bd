"""A store, a journal and books in a folder, ways to fill them, and what came of it."""

from pathlib import Path

from gateway.ledger.books import FOLDER_NAME, Books
from gateway.ledger.costs import Ending, tariff_of
from gateway.ledger.entry import Intent, head_of
from gateway.ledger.journal import Journal
from gateway.ledger.segment import Files
from gateway.state.blocks import Packed
from gateway.state.connection import FILE_NAME
from gateway.state.helped_writer import Scribe
from gateway.state.ledger_reader import Filter, LedgerReader, Spent
from gateway.state.store import Store
from providers.base import Price
from providers.messages import Usage

TARIFF = tariff_of("p/m", Price(200_000, 600_000), ())
PRICE_ID = TARIFF.snapshot.price_id
SEGMENT_BYTES = 256 * 1024


def pack(record) -> Packed:
    raise AssertionError(f"no record is written here: {record}")


class Ledger:
    """All of it, at work."""

    def __init__(self, home: Path, files: Files | None = None, scribe: Scribe | None = None, **sizes) -> None:
        self.home = home
        self.path = home / FILE_NAME
        self.journal = Journal(home / FOLDER_NAME, files, **({"segment_bytes": SEGMENT_BYTES, "spares": 1} | sizes))
        self.store = Store.open(self.path, pack, scribe=scribe)
        self.books = Books(self.journal, self.store)
        self.books.start()

    def begin(self, attempt_id: str, **facts) -> None:
        said = {"prompt_tokens": 1000} | facts
        intent = Intent(attempt_id, 1_700_000_000_000_000, "k", "r", "m", "p/m", "p", "chat", True, PRICE_ID, **said)
        self.books.begin(head_of(intent), intent.tags, TARIFF)

    def end(self, attempt_id: str, output_tokens: int = 300):
        usage = Usage(input_tokens=1200, output_tokens=output_tokens)
        return self.books.end(attempt_id, Ending(unix_us=1_700_000_001_000_000, outcome="ok", usage=usage))

    def whole(self, attempt_id: str, output_tokens: int = 300) -> None:
        self.begin(attempt_id)
        self.end(attempt_id, output_tokens)

    def close(self) -> bool:
        closed = self.store.close()
        self.books.close()
        return closed

    def rows(self) -> dict:
        return rows_of(self.path)

    def journals(self) -> list[Path]:
        return sorted(self.journal.folder.glob("*.journal"))


def rows_of(path: Path) -> dict:
    """Every row of the ledger by its Attempt; that none is there twice is made sure of."""
    found = []
    with LedgerReader(path) as reader:
        page = reader.entries(Filter(), count=1000)
        found += page.entries
        while page.before is not None:
            page = reader.entries(Filter(), before=page.before, count=1000)
            found += page.entries
    rows = {entry.attempt_id: entry for entry in found}
    assert len(rows) == len(found)
    return rows


def total_of(path: Path) -> Spent:
    """The roll-up of everything; it is made sure that every other way to add up gives the same."""
    with LedgerReader(path) as reader:
        (total,) = reader.spend("all", 0, 1 << 60)
        for by in ("model", "provider", "endpoint", "key", "app", "route", "day"):
            lines = reader.spend(by, 0, 1 << 60)
            for name in Spent.__struct_fields__[1:]:
                assert sum(getattr(line, name) for line in lines) == getattr(total, name), (by, name)
    return total
