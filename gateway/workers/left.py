"""Journals of processes that are gone: found, and read like any that a crash left."""

import contextlib
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.ledger.backlog import Backlog
from gateway.ledger.books import FOLDER_NAME
from gateway.ledger.costs import MICROSECONDS
from gateway.ledger.journal import Journal
from gateway.ledger.recovery import Recovery
from gateway.state.entries import Row


class LeftJournal:
    """What a process that is gone has left in its journal.

    Args:
        folder: The journal's.
        on_rows: Told the rows that are in the store now. Called by the store's thread.
        on_done: Told that there are no more. Called by the store's thread.
    """

    def __init__(
        self,
        folder: Path,
        on_rows: Callable[[Sequence[Row]], None] | None = None,
        on_done: Callable[[], None] | None = None,
    ) -> None:
        self.folder = folder
        self.on_rows = on_rows
        self.on_done = on_done
        self.journal = Journal(folder, spares=0)
        self.backlog = Backlog(self.journal, Recovery(self.journal, lambda: int(time.time() * MICROSECONDS)))

    def open(self) -> bool:
        """Whether there is one, and its process is gone indeed. Blocks."""
        if not self.folder.is_dir():
            return False
        self.journal.open()
        if not self.journal.found:
            self.journal.close()
            return False
        return True

    def close(self) -> None:
        """Let go of it, and of the folder of a worker's where nothing is in there any more. Blocks."""
        whole = self.backlog.recovered.is_set() and not self.journal.old
        self.journal.close()
        if whole and self.folder.name != FOLDER_NAME:
            with contextlib.suppress(OSError):
                (self.folder / "journal.lock").unlink(missing_ok=True)
                self.folder.rmdir()


def left_folders(home: Path, living: Sequence[str] = ()) -> list[Path]:
    """Journals of workers that are gone, oldest first. Blocks.

    Args:
        home: MIXGATE_HOME.
        living: Names of those that are not.
    """
    try:
        return sorted(one for one in (home / FOLDER_NAME).iterdir() if one.is_dir() and one.name not in living)
    except OSError:
        return []
