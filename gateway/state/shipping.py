"""Sends what is in mixgate.db to a fleet's Postgres, and fetches the fleet's keys, in a thread of its own.

Nobody waits for it. While Postgres is away, slow or broken, rows stay where they are, in the file, and are sent when it
is back: the file is the outbox, and its size the bound.
"""

import contextlib
import logging
import platform
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec import Struct

from gateway.state.errors import StoreError
from gateway.state.key_rows import KeyRow, write_key
from gateway.state.outbox import MINUTES_AGAIN, Outbox, Parcel
from gateway.state.outbox_rows import keep_position

if TYPE_CHECKING:
    from concurrent.futures import Future

    from sqlalchemy.engine import Connection

    from gateway.state.postgres_database import Database

PARCEL_ROWS: Final = 500
"""Rows that are sent together."""
SEND_EVERY_S: Final = 0.5
"""How often it is looked whether there is something to send."""
KEYS_EVERY_S: Final = 2.0
"""How often changes of keys go to and fro."""
NOTE_EVERY_S: Final = 10.0
"""How often this replica says that it is there, and sends its minutes."""
MINUTES_AT_ONCE: Final = 5000
"""Rows of Endpoints and minutes that are sent together."""
MINUTES_FOR: Final = 30 * 24 * 60
"""How many minutes of a replica are kept in Postgres."""
RETRY_WAIT_S: Final = 0.5
"""First pause after something failed; it doubles."""
RETRY_WAIT_MAX_S: Final = 10.0
FIRST_WAIT_S: Final = 3.0
"""How long the start waits for the store to open the file."""
LAST_WAIT_S: Final = 5.0
"""How long the end goes on sending what is left."""
LOCAL_WAIT_S: Final = 10.0
"""How long a change of keys may take to be in the file."""

_log = logging.getLogger("mixgate.postgres")


class Submits(Protocol):
    """The store, as far as it is needed here."""

    def submit(self, work: Callable[[sqlite3.Connection], None]) -> "Future[None]":
        """Have its writer change something."""
        ...

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything is in the file."""
        ...


class Shipping(Struct, frozen=True):
    """How far it is."""

    sent: int
    """Rows that were sent since the start."""
    waiting: int | None
    """Rows that have still to be sent; None: nobody has looked yet."""
    refused: int
    """Rows that Postgres did not take, which is a fault of ours."""
    failure: str | None
    """Why nothing can be sent now."""


class Shipper:
    """The thread. Any other may call its methods."""

    def __init__(
        self,
        path: Path,
        store: Submits,
        url: str,
        *,
        key_mark: str = "",
        on_keys: Callable[[Sequence[KeyRow]], None] | None = None,
    ) -> None:
        """Send nothing yet.

        Args:
            path: mixgate.db.
            store: It keeps how far the sending has come, and writes the fleet's keys.
            url: Of Postgres.
            key_mark: Tells whether two gateways have the same secret for keys; empty: no keys go to or fro.
            on_keys: Told of keys that another gateway changed, once they are in the file. Called by the thread.
        """
        self._path = path
        self._store = store
        self._url = url
        self._release = _release()
        self._key_mark = key_mark
        self._on_keys = on_keys
        self._database: Database | None = None
        self._outbox: Outbox | None = None
        self._replica = ""
        self._position = 0
        self._kept: Future[None] | None = None
        self._shipping = Shipping(0, None, 0, None)
        self._minute = 0
        self._keys = _Keys()
        self._keys_at_s = self._note_at_s = 0.0
        self._prepared = False
        self._wake = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="mixgate-postgres", daemon=True)

    @classmethod
    def open(cls, path: Path, store: Submits, url: str, **settings: Any) -> "Shipper":
        """Start to send."""
        shipper = cls(path, store, url, **settings)
        shipper._thread.start()
        return shipper

    @property
    def shipping(self) -> Shipping:
        """How far it is."""
        return self._shipping

    def close(self, timeout_s: float = LAST_WAIT_S) -> bool:
        """Send what is left, if that does not take long. False where rows are left for the next start. Blocks.

        To be called before the store is closed.
        """
        if not self._stopping:
            self._store.flush(timeout_s)
        self._stopping = True
        self._wake.set()
        self._thread.join(timeout_s)
        return not self._thread.is_alive() and self._shipping.waiting == 0

    def _run(self) -> None:
        self._store.flush(FIRST_WAIT_S)  # before that there may be no file
        wait_s = 0.0
        while not self._stopping:
            self._wake.wait(wait_s)
            wait_s = self._try(self._step, wait_s)
        if self._prepared and self._shipping.failure is None:
            end_s = time.monotonic() + LAST_WAIT_S
            while self._try(self._send_some, 0.0) == 0.0 and time.monotonic() < end_s:
                pass
            self._try(self._note, 0.0)
        self._keep_position()
        self._let_go()

    def _try(self, step: Callable[[], bool], waited_s: float) -> float:
        """Do a step; how long to wait for the next one."""
        try:
            more = step()
        except StoreError as error:
            return self._fail(str(error), waited_s)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not end the thread; logged
            _log.exception("sending to Postgres failed")
            return self._fail(type(error).__name__, waited_s)
        if self._shipping.failure is not None:
            _log.warning("rows are sent to Postgres again; %s wait", self._shipping.waiting)
            self._set(failure=None)
        return 0.0 if more else SEND_EVERY_S

    def _fail(self, why: str, waited_s: float) -> float:
        if self._shipping.failure is None:
            _log.warning("nothing can be sent to Postgres now: %s. The rows wait in %s", why, self._path.name)
        self._set(failure=why)
        self._let_go()
        return min(RETRY_WAIT_MAX_S, max(RETRY_WAIT_S, waited_s * 2))

    def _let_go(self) -> None:
        outbox, self._outbox = self._outbox, None
        if outbox is not None:
            outbox.close()
        if self._database is not None:
            self._database.close()

    def _set(self, **changes: Any) -> None:
        values = {name: getattr(self._shipping, name) for name in Shipping.__struct_fields__}
        self._shipping = Shipping(**(values | changes))

    def _step(self) -> bool:
        """Whether there is more to do at once."""
        outbox = self._opened()
        self._count_waiting(outbox)
        if not self._prepared:
            self._db().prepare()
            self._prepared = True
        now_s = time.monotonic()
        if self._key_mark and now_s >= self._keys_at_s:
            self._exchange_keys(outbox)
            self._keys_at_s = time.monotonic() + KEYS_EVERY_S
        if now_s >= self._note_at_s:
            self._note()
            self._note_at_s = time.monotonic() + NOTE_EVERY_S
        return self._send_some()

    def _opened(self) -> Outbox:
        if self._outbox is not None and self._outbox.gone:
            self._outbox.close()
            self._outbox = None
        if self._outbox is None:
            outbox = self._outbox = Outbox(self._path)
            if self._replica != outbox.replica:
                self._replica, self._position, self._minute = outbox.replica, outbox.position, 0
        return self._outbox

    def _db(self) -> "Database":
        if self._database is None:
            # SQLAlchemy takes a second to import, which only a fleet should pay for, and no request should wait for.
            from gateway.state.postgres_database import Database  # noqa: PLC0415

            self._database = Database(self._url)
        return self._database

    def _send_some(self) -> bool:
        """Send one parcel. Whether there may be more."""
        outbox = self._opened()
        parcel = outbox.parcel(self._position, PARCEL_ROWS)
        if parcel is None:
            self._set(waiting=0)
            self._keep_position()
            return False
        sent, refused = self._send(parcel)
        self._position = parcel.last
        self._set(sent=self._shipping.sent + sent, refused=self._shipping.refused + refused)
        more = len(parcel.rows) == PARCEL_ROWS
        if self._kept is None or self._kept.done():
            self._keep_position()
        self._count_waiting(outbox)
        return more

    def _send(self, parcel: Parcel) -> tuple[int, int]:
        """How many rows are there now, and how many will never be."""
        from gateway.state.postgres_database import RefusedError  # noqa: PLC0415 # as above
        from gateway.state.postgres_writer import add_entries  # noqa: PLC0415 # as above

        with self._db().connect(autocommit=True) as connection:
            try:
                add_entries(connection, self._replica, parcel.rows, parcel.prices)
            except RefusedError:
                return self._send_each(connection, parcel)
        return len(parcel.rows), 0

    def _send_each(self, connection: "Connection", parcel: Parcel) -> tuple[int, int]:
        """One row that Postgres does not take must not hold up the others."""
        from gateway.state.postgres_database import RefusedError  # noqa: PLC0415 # as above
        from gateway.state.postgres_writer import add_entries  # noqa: PLC0415 # as above

        refused = 0
        for row in parcel.rows:
            try:
                add_entries(connection, self._replica, [row], parcel.prices)
            except RefusedError as error:
                refused += 1
                _log.error("Postgres does not take the row %s, which stays in the file alone: %s", row[0], error)
        return len(parcel.rows) - refused, refused

    def _count_waiting(self, outbox: Outbox) -> None:
        self._set(waiting=outbox.last - self._position)

    def _keep_position(self) -> None:
        """Say in the file how far it is. Nothing is lost where that fails: the rows are sent again."""
        position = self._position
        if self._outbox is not None and position != self._outbox.position:
            self._kept = self._store.submit(lambda connection: keep_position(connection, position))
            if self._stopping:
                with contextlib.suppress(Exception):
                    self._kept.result(LOCAL_WAIT_S)

    def _note(self) -> bool:
        """Say that this replica is there, and send its minutes."""
        from gateway.state.postgres_writer import note_replica, prune_minutes, set_minutes  # noqa: PLC0415 # as above

        rows = self._opened().minutes(self._minute, MINUTES_AT_ONCE)
        with self._db().connect() as connection:
            waiting = self._shipping.waiting or 0
            note_replica(connection, self._replica, platform.node(), self._release, waiting)
            if rows:
                set_minutes(connection, self._replica, rows)
                prune_minutes(connection, self._replica, rows[-1].minute - MINUTES_FOR)
        if rows:
            full = len(rows) == MINUTES_AT_ONCE
            self._minute = max(self._minute, rows[-1].minute - (0 if full else MINUTES_AGAIN))
        return False

    def _exchange_keys(self, outbox: Outbox) -> None:
        """Fetch what others changed, then send what was changed here."""
        from gateway.state.postgres_writer import agree, changed_keys, save_keys  # noqa: PLC0415 # as above

        known = self._keys
        with self._db().connect() as connection:
            if not known.agreed and agree(connection, "key_mark", self._key_mark) != self._key_mark:
                known.agreed = True
                self._key_mark = ""
                _log.error(
                    "this gateway has another secret than the fleet, so that its keys are not shared: copy the file "
                    "`secret` from the first gateway's MIXGATE_HOME"
                )
                return
            known.agreed = True
            revision, theirs = changed_keys(connection, known.revision)
        mine = outbox.keys() if theirs or known.state != outbox.key_state() else []
        state = outbox.key_state()
        if news := known.news(theirs, mine):
            self._store.submit(lambda connection: _write_keys(connection, news)).result(LOCAL_WAIT_S)
            if self._on_keys is not None:
                self._on_keys(news)
        known.note(theirs)
        known.revision = revision
        if changed := known.unknown(mine):
            with self._db().connect() as connection:
                save_keys(connection, changed)
            known.note(changed)
        known.state = state


def _release() -> str:
    try:
        return version("mixgate")
    except PackageNotFoundError:
        return "unknown"


def _write_keys(connection: sqlite3.Connection, rows: Sequence[KeyRow]) -> None:
    for row in rows:
        write_key(connection, row)


class _Keys:
    """What the fleet knows of keys, as far as this replica has heard."""

    def __init__(self) -> None:
        self.agreed = False
        self.revision = 0
        self.state: tuple[int, int] | None = None
        self._known: dict[str, tuple[int, bool]] = {}

    def note(self, rows: Sequence[KeyRow]) -> None:
        """The fleet has these."""
        self._known.update({row.id: (row.updated_us, row.deleted_us is not None) for row in rows})

    def news(self, theirs: Sequence[KeyRow], mine: Sequence[KeyRow]) -> list[KeyRow]:
        """Which of the fleet's keys are to be taken over here."""
        here = {row.id: row for row in mine}
        return [row for row in theirs if _counts(row, _standing(here.get(row.id)))]

    def unknown(self, mine: Sequence[KeyRow]) -> list[KeyRow]:
        """Which keys of this replica the fleet does not know so."""
        return [row for row in mine if _counts(row, self._known.get(row.id))]


def _standing(row: KeyRow | None) -> tuple[int, bool] | None:
    return None if row is None else (row.updated_us, row.deleted_us is not None)


def _counts(row: KeyRow, other: tuple[int, bool] | None) -> bool:
    """Whether a row has the last word: what is deleted stays so, else the later change counts."""
    if other is None:
        return True
    if other[1]:
        return False
    return row.deleted_us is not None or row.updated_us > other[0]
