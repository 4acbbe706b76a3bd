"""What the gateway starts beside itself while much is written: `scribe_process mixgate.db journal relaxed`.

It reads rows of the ledger from the gateway's journal, records from its stdin, and writes both. It ends with its stdin,
at once: what it is in the middle of is rolled back, and the gateway, or the next one, writes it.

The third word is RELAXED, which runs only on a core that nobody else wants, so that no request waits for it; or
PRESSED, which shares cores like any program, for a machine on which no core is ever free.
"""

import contextlib
import os
import signal
import socket
import sqlite3
import sys
from pathlib import Path
from typing import Final

import msgspec

from gateway.ledger.journal_tail import JournalTail
from gateway.ledger.scribe_messages import (
    PRESSED,
    Done,
    Tidy,
    Work,
    WriteRecords,
    decode_work,
    encode,
)
from gateway.state.blocks import in_blocks
from gateway.state.connection import connect_writer
from gateway.state.entries import Batch, Place
from gateway.state.frames import FrameError, encode_frame, read_frame
from gateway.state.writer import UNSTORABLE, Writer

ROWS_AT_ONCE: Final = 256
"""Rows of one transaction: few enough to stay in a processor's cache."""
LOCK_WAIT_S: Final = 0.5
"""How long it waits for a lock that another program holds; then the gateway does, and says so."""
_FAILURES: Final = (sqlite3.Error, OSError, msgspec.MsgspecError, *UNSTORABLE)
"""Of one piece of work. A TailError is a ValueError, and so one of them."""


def work_off(connection: socket.socket, writer: Writer, tail: JournalTail) -> None:
    """Do what is asked, until nobody asks any more.

    Raises:
        OSError: The gateway is gone.
        FrameError: It is not one.
    """
    connection.sendall(encode_frame(0, encode(Done())))
    while True:
        number, payload = read_frame(connection)
        try:
            done = _do(decode_work.decode(payload), writer, tail)
        except _FAILURES as error:
            done = Done(f"{type(error).__name__}: {error}")
        connection.sendall(encode_frame(number, encode(done)))


def _do(work: Work, writer: Writer, tail: JournalTail) -> Done:
    if isinstance(work, Tidy):
        return Done(more=writer.prune_rest(work.unix_s))
    if isinstance(work, WriteRecords):
        before_bytes = writer.records_bytes
        for block in in_blocks(work.records):
            writer.write_records(block, work.unix_s)
        return Done(size_bytes=writer.records_bytes - before_bytes)
    place, prices, count = Place(work.start, work.end, {}), work.prices, 0
    while count < work.count_max:
        rows = tail.rows(place, ROWS_AT_ONCE)
        if rows or prices:
            writer.write_rows(Batch(rows, prices))
        prices, count = [], count + len(rows)
        if len(rows) < ROWS_AT_ONCE:
            break
    return Done(reached=place.start, counts=place.counts)


def main() -> None:
    """Write for the gateway that started this."""
    # Ctrl-C at a terminal, and the end of a service, come to all processes; this one ends when the gateway wants it to.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    path, folder = Path(sys.argv[1]), Path(sys.argv[2])
    if sys.platform == "linux":
        with contextlib.suppress(OSError):  # some machines allow nobody to change it
            os.sched_setscheduler(0, os.SCHED_BATCH if sys.argv[3] == PRESSED else os.SCHED_IDLE, os.sched_param(0))
    connection = socket.socket(fileno=0)
    try:
        work_off(connection, _open(path), JournalTail(folder))
    except sqlite3.Error as error:
        connection.sendall(encode_frame(0, encode(Done(f"it cannot open {path}: {error}"))))
    except (OSError, FrameError):
        # Not closed: whoever closes it last moves the log into the file, which is for the gateway to do.
        os._exit(0)


def _open(path: Path) -> Writer:
    store = connect_writer(path, check=False)
    store.execute(f"PRAGMA busy_timeout = {int(LOCK_WAIT_S * 1000)}")
    return Writer(store)


if __name__ == "__main__":
    main()
