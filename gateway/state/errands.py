"""Changes that somebody waits for: each is done by the writer in one transaction, and on the disk when that is said."""

import sqlite3
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from gateway.state.errors import StoreError, translate
from gateway.state.transaction import Transaction

ERRANDS_MAX: Final = 256
"""Changes that wait to be done; another one is refused."""

Work = Callable[[sqlite3.Connection], None]


class Errands:
    """What waits to be done. Any thread may add, one does it."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Work, Future[None]]] = deque()

    def add(self, work: Work) -> "Future[None]":
        """Let something be done; the Future says when it is, or why it cannot be."""
        done: Future[None] = Future()
        if len(self._waiting) >= ERRANDS_MAX:
            done.set_exception(StoreError(f"{ERRANDS_MAX} changes wait to be written already; ask again in a moment"))
        else:
            self._waiting.append((work, done))
        return done

    def run(self, connection: sqlite3.Connection) -> None:
        """Do all that waits. What fails is reported to whoever waits for it, and raised if it is the file's fault."""
        if not self._waiting:
            return
        connection.execute("PRAGMA synchronous = FULL")
        try:
            while (errand := self._next()) is not None:
                _do(connection, *errand)
        finally:
            connection.execute("PRAGMA synchronous = NORMAL")

    def fail(self, error: StoreError) -> None:
        """Nothing can be written now: tell everybody who waits."""
        while (errand := self._next()) is not None:
            errand[1].set_exception(error)

    def _next(self) -> "tuple[Work, Future[None]] | None":
        """The next one that somebody still waits for."""
        while self._waiting:
            try:
                work, done = self._waiting.popleft()
            except IndexError:  # another thread was faster
                break
            if done.set_running_or_notify_cancel():
                return work, done
        return None


def _do(connection: sqlite3.Connection, work: Work, done: "Future[None]") -> None:
    try:
        with Transaction(connection):
            work(connection)
    except sqlite3.IntegrityError as error:
        done.set_exception(translate(error))  # the change is wrong, the file is sound
    except sqlite3.Error as error:
        done.set_exception(translate(error))
        raise
    except Exception as error:  # noqa: BLE001 - whoever waits is told; the store goes on
        done.set_exception(error)
    else:
        done.set_result(None)
