"""The gateway's end of the process that writes mixgate.db for it while much is to be written.

Rows of the ledger are not handed over: the process reads them from the journal, where they are anyway, and is told how
far. Whatever it does not do, the store's thread does itself; so it may be ended, or killed, at any time.
"""

import contextlib
import logging
import select
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import msgspec

from gateway.ledger.books import FOLDER_NAME
from gateway.ledger.scribe_messages import (
    PRESSED,
    RELAXED,
    Done,
    Tidy,
    Work,
    WriteRecords,
    WriteRows,
    decode_done,
    encode,
)
from gateway.state.beside import command_for, environment
from gateway.state.blocks import Packed, lean
from gateway.state.connection import FILE_NAME
from gateway.state.entries import Place, PriceSnapshot
from gateway.state.errors import ScribeError
from gateway.state.frames import FrameDecoder, FrameError, encode_frame
from gateway.state.helped_writer import PLACE_ROWS_MAX

BUSY_ROWS: Final = 64
"""So many rows at once, which is 256 a second, are much."""
IDLE_S: Final = 60.0
"""How long it stays after it was last busy."""
AGAIN_AFTER_S: Final = 60.0
"""When it is started again after it failed."""
START_TIMEOUT_S: Final = 30.0
"""How long it may take to be ready, on a machine that has other things to do."""
STARVED_S: Final = 2.0
"""An answer that takes longer comes from a process that gets no core: from then on it must share them with others."""
ANSWER_TIMEOUT_S: Final = 15.0
"""How long one may take that does."""
PRESSED_FOR_S: Final = 600.0
"""How long that lasts."""
ANSWER_BYTES: Final = 64 * 1024
"""More than any answer has."""
END_TIMEOUT_S: Final = 0.2
"""How long it may take to end by itself."""

_TIMEVAL: Final = struct.Struct("@ll")
_log = logging.getLogger("mixgate.ledger")


class ScribeProcess:
    """Starts it, and has it write. For one thread.

    Args:
        home: MIXGATE_HOME, with the file and the journal.
        now_s: The monotonic clock.
    """

    def __init__(self, home: Path, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._home = home
        self._now_s = now_s
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._ready = False
        self._frames = FrameDecoder()
        self._number = 0
        self._not_before_s = 0.0
        self._begun_s = 0.0
        self._busy_s = 0.0
        self._pressed_until_s = 0.0

    @property
    def pid(self) -> int | None:
        """Of the process, where there is one."""
        return None if self._process is None else self._process.pid

    @property
    def ready(self) -> bool:
        """Whether it writes what it is given now. Waits for nothing."""
        return self._ready or self._becomes_ready()

    def want(self, count: int, lock: int | None) -> None:
        """So many rows or records are written at once: where that is much, start it.

        Args:
            count: How many there are.
            lock: A descriptor that stays open as long as it lives.
        """
        if count < BUSY_ROWS:
            return
        self._busy_s = now_s = self._now_s()
        if self._process is None and now_s >= self._not_before_s:
            self._start(lock)

    def write_ledger(self, place: Place, prices: Sequence[PriceSnapshot]) -> None:
        """Write what the journal has there, or the first part of it; then its start is behind that, and it is counted.

        Raises:
            ScribeError: Some or all of them may not be there.
        """
        done = self._ask(WriteRows(place.start, place.end, PLACE_ROWS_MAX, list(prices)))
        place.start, place.counts = done.reached, done.counts

    def write_records(self, records: Sequence[Packed], now_unix_s: float) -> int:
        """Write blocks of records; gives their size in bytes.

        Raises:
            ScribeError: They may not be there.
        """
        return self._ask(WriteRecords(lean(records), now_unix_s)).size_bytes

    def tidy(self, now_unix_s: float) -> bool:
        """Do a little of all tidying but that of records. Whether there may be more of it.

        Raises:
            ScribeError: Nobody knows whether it was done.
        """
        return self._ask(Tidy(now_unix_s)).more

    def rest(self) -> None:
        """End it, where it had little to do for a while."""
        if self._process is not None and self._now_s() - self._busy_s >= IDLE_S:
            _log.debug("little is written, so the process that writes it is ended")
            self.end()

    def end(self) -> None:
        """End it; it writes nothing any more when this returns."""
        process, self._process, self._ready = self._process, None, False
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if process is None:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
            return
        process.kill()
        process.wait()

    def _start(self, lock: int | None) -> None:
        ours, theirs = socket.socketpair()
        self._begun_s = self._now_s()
        pressed = self._begun_s < self._pressed_until_s
        words = (str(self._home / FILE_NAME), str(self._home / FOLDER_NAME), PRESSED if pressed else RELAXED)
        try:
            self._process = subprocess.Popen(  # noqa: S603 # a program of our own
                command_for("gateway.ledger.scribe_process", *words),
                stdin=theirs.fileno(),
                stdout=subprocess.DEVNULL,
                env=environment(),
                cwd="/",
                pass_fds=[] if lock is None else [lock],
            )
        except OSError as error:
            ours.close()
            self._give_up(f"it cannot be started: {error}")
            return
        finally:
            theirs.close()
        _limit(ours, ANSWER_TIMEOUT_S if pressed else STARVED_S)
        self._connection, self._frames, self._number = ours, FrameDecoder(), 0
        _log.debug("much is written: process %d writes it", self._process.pid)

    def _becomes_ready(self) -> bool:
        """Whether it has just said that it can be asked."""
        connection = self._connection
        if connection is None:
            return False
        said = select.poll()  # unlike `select`, for a gateway with more than 1,024 connections too
        said.register(connection, select.POLLIN)
        if said.poll(0):
            with contextlib.suppress(ScribeError):
                self._hear(connection)
                self._ready = True
        elif self._now_s() - self._begun_s >= START_TIMEOUT_S:
            self._give_up("it does not come up")
        return self._ready

    def _ask(self, work: Work) -> Done:
        """Have something done, and wait for it.

        Raises:
            ScribeError: It is not, or nobody knows, and the process is ended.
        """
        connection = self._connection
        if connection is None:
            raise ScribeError("the process that writes is not there")
        self._number += 1
        try:
            connection.sendall(encode_frame(self._number, encode(work)))
        except BlockingIOError as error:
            raise self._starved() from error
        except (OSError, FrameError) as error:
            raise self._give_up(str(error)) from error
        return self._hear(connection)

    def _hear(self, connection: socket.socket) -> Done:
        """The answer to what was asked last.

        Raises:
            ScribeError: As for `_ask`.
        """
        frames: list[tuple[int, bytes]] = []
        try:
            while not frames:
                data = connection.recv(ANSWER_BYTES)
                if not data:
                    raise ConnectionResetError("it has ended")
                frames = self._frames.feed(data)
            number, payload = frames[0]
            done = decode_done.decode(payload)
        except BlockingIOError as error:
            raise self._starved() from error
        except (OSError, FrameError, msgspec.MsgspecError) as error:
            raise self._give_up(str(error)) from error
        if done.error is not None or number != self._number:
            raise self._give_up(done.error or "it answers something else")
        return done

    def _starved(self) -> ScribeError:
        """It took too long: the next one gets a core, whoever else wants it."""
        now_s = self._now_s()
        if now_s < self._pressed_until_s:
            return self._give_up("it does not answer")
        _log.debug("the process that writes gets no core, and is started again as one that shares them")
        self._pressed_until_s = now_s + PRESSED_FOR_S
        self.end()
        return ScribeError("the process that writes gets no core")

    def _give_up(self, why: str) -> ScribeError:
        """Do without it for a while."""
        _log.warning("the process that writes the ledger is done without for %d s: %s", AGAIN_AFTER_S, why)
        self._not_before_s = self._now_s() + AGAIN_AFTER_S
        self.end()
        return ScribeError(why)


def _limit(connection: socket.socket, timeout_s: float) -> None:
    """Let the kernel end what takes too long: with a timeout of Python's own, each call would take its lock twice."""
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connection.setsockopt(socket.SOL_SOCKET, option, _TIMEVAL.pack(int(timeout_s), int(timeout_s % 1 * 1_000_000)))
