"""What the ledger knows at one moment: what was spent, and which Attempts are part of that."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from gateway.keys.purse import Past, read_past
from gateway.keys.storage import spending
from gateway.state.errors import StoreError
from gateway.state.ledger_reader import LedgerReader

ASKED_AT_ONCE: Final = 500


class PastReader(LedgerReader):
    """Looks at the ledger as it is at one moment, whoever writes meanwhile. One thread at a time."""

    def past(
        self, key_ids: Sequence[str], unix_s: float, since: int, attempt_ids: Iterable[str]
    ) -> tuple[Past, frozenset[str]]:
        """What each key spent, and which Attempts are counted in that.

        Args:
            key_ids: All keys.
            unix_s: The wall clock.
            since: Of rows behind this one all Attempts are named.
            attempt_ids: Of rows up to it only these.

        Raises:
            StoreError: The store cannot be read.
        """
        self._rows("BEGIN", ())
        try:
            past = read_past(spending(self, key_ids), unix_s) if key_ids else ()
            found = {str(row[0]) for row in self._rows("SELECT attempt_id FROM entry WHERE entry > ?", (since,))}
            asked = [*attempt_ids]
            for at in range(0, len(asked), ASKED_AT_ONCE):
                some = asked[at : at + ASKED_AT_ONCE]
                marks = ", ".join("?" * len(some))
                found.update(
                    str(row[0])
                    for row in self._rows(f"SELECT attempt_id FROM entry WHERE attempt_id IN ({marks})", some)  # noqa: S608 # marks
                )
        finally:
            self._rows("ROLLBACK", ())
        return past, frozenset(found)

    def last_entry(self) -> int:
        """The number of the last row; 0 where there is none.

        Raises:
            StoreError: The store cannot be read.
        """
        if not self._rows("SELECT 1 FROM sqlite_schema WHERE name = 'entry'", ()):
            return 0
        last: int = self._rows("SELECT coalesce(max(entry), 0) FROM entry", ())[0][0]
        return last


def last_entry(path: Path) -> int:
    """The number of the ledger's last row; 0 where there is none, or nobody can say. Blocks."""
    try:
        if not path.exists():
            return 0
        with PastReader(path) as reader:
            return reader.last_entry()
    except StoreError:
        return 0
