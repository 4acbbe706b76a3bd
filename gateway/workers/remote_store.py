"""The store as a worker has it: what is handed over is written by the owner, who alone has the file open.

The thread, the queues and their bounds are those of `Store`. While the owner is away it is as if the disk were: the
ledger waits in the worker's journal, records wait up to a bound, and it is tried again every moment.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final

import msgspec

from gateway.observation import MinuteRow
from gateway.state.blocks import Packed, lean
from gateway.state.entries import Batch
from gateway.state.errands import Errands, Work
from gateway.state.errors import StoreError
from gateway.state.frames import FRAME_MAX_BYTES, FrameError, encode_frame, read_frame
from gateway.state.store import AtOnce, Store
from gateway.state.writer import EndpointEvent
from gateway.state.writing import Writing
from gateway.workers.link import connect, socket_path
from gateway.workers.messages import Events, Minutes, Records, Reply, Rows, StoreHello, decode, encode

ANSWER_TIMEOUT_S: Final = 15.0
"""How long the owner may take to write something: more than it waits for the disk before it says no."""
RETRY_WAIT_MAX_S: Final = 0.5
"""The longest pause before it is looked again whether the owner is there."""
LOOK_EVERY_S: Final = 0.5
"""How often whoever waits looks whether the end has come."""
FRAME_AIM_BYTES: Final = FRAME_MAX_BYTES // 4


class RemoteStore(Store):
    """A Store whose file another process has.

    Args:
        home: MIXGATE_HOME, where the owner listens.
        path: The file, for those who only read it.
        pack: As for `Store`.
        name: Of this worker.
        at_once: As for `Store`.
    """

    def __init__(
        self, path: Path, pack: Callable[[Any], Packed], *, home: Path, name: str, at_once: AtOnce | None = None
    ) -> None:
        super().__init__(path, pack, at_once=at_once)
        self._socket_path = socket_path(home)
        self._name = name

    def begin(self) -> None:
        """Start the thread."""
        self._runner.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until everything handed over so far is in the owner's file, or the end comes. Blocks."""
        end_s = time.monotonic() + timeout_s
        while not self._stopping and (left_s := end_s - time.monotonic()) > 0:
            if super().flush(min(left_s, LOOK_EVERY_S)):
                return True
        return False

    def submit(self, work: Work) -> "Future[None]":  # noqa: ARG002  # a function cannot be handed over
        """Nothing can be changed from here."""
        done: Future[None] = Future()
        done.set_exception(StoreError("the owner of the store changes it"))
        return done

    def _opened(self) -> Writing:
        if self._writer is None:
            self._writer = RemoteWriter(self._socket_path, self._name)
        return self._writer

    def _fail(self, error: StoreError) -> None:
        super()._fail(error)
        self._retry_wait_s = min(self._retry_wait_s, RETRY_WAIT_MAX_S)


class RemoteWriter:
    """Hands over what is to be written, and waits until that is done. For one thread."""

    def __init__(self, path: Path, name: str) -> None:
        """Connect.

        Raises:
            StoreError: The owner is not there.
        """
        self._number = 0
        try:
            self._connection: socket.socket = connect(path, ANSWER_TIMEOUT_S)
        except OSError as error:
            raise StoreError(_away(error)) from error
        try:
            self._ask(StoreHello(name))
        except BaseException:
            self.abandon()
            raise

    @property
    def reads_journal(self) -> bool:
        """Whether it takes a place instead of rows."""
        return False

    def run(self, errands: Errands) -> None:
        """There are none."""
        errands.fail(StoreError("the owner of the store changes it"))

    def write_ledger(self, batch: Batch) -> None:
        """Have the disk of the owner take rows."""
        rows = [list(row) for row in batch.rows]
        prices = list(batch.prices)
        payload = encode(Rows(rows, prices))
        if len(payload) > FRAME_AIM_BYTES and len(rows) > 1:
            half = len(rows) // 2
            self.write_ledger(Batch(rows[:half], prices))
            self.write_ledger(Batch(rows[half:], []))
            return
        self._ask_payload(payload)

    def write_records(self, records: Sequence[Packed], now_unix_s: float) -> None:  # noqa: ARG002  # the owner's clock
        """Hand over records."""
        self._ask(Records(lean(records)))

    def write_minutes(self, rows: Iterable[MinuteRow]) -> None:
        """Hand over minutes."""
        self._ask(Minutes(list(rows)))

    def write_events(self, events: Iterable[EndpointEvent]) -> None:
        """Hand over changes of standing."""
        self._ask(Events(list(events)))

    def close(self) -> None:
        """Hang up."""
        self.abandon()

    def abandon(self) -> None:
        """Hang up."""
        with contextlib.suppress(OSError):
            self._connection.close()

    def _ask(self, message: Any) -> None:
        self._ask_payload(encode(message))

    def _ask_payload(self, payload: bytes) -> None:
        """Say something and wait until it is done.

        Raises:
            StoreError: It is not, or nobody knows.
        """
        self._number += 1
        try:
            self._connection.sendall(encode_frame(self._number, payload))
            number, answer = read_frame(self._connection)
            reply = decode(answer)
        except (OSError, FrameError, msgspec.MsgspecError) as error:
            raise StoreError(_away(error)) from error
        if not isinstance(reply, Reply) or number != self._number:
            raise StoreError("the owner of the store answered something else")
        if reply.error is not None:
            raise StoreError(reply.error.partition(": ")[2])


def _away(error: Exception) -> str:
    return f"the process that owns the store does not answer ({error or type(error).__name__}); it is started again"
