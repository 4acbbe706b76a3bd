"""Local models for all workers of a machine: the owner has the one local backend, and passes requests on to it.

Fairness stays where it was: the backend's queue is fair to callers, and a request carries its caller with it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Generic, Protocol, TypeVar

import msgspec

from gateway.workers.line import OwnerLine
from gateway.workers.messages import LocalAsked, LocalDropped, LocalHead, LocalModels, LocalPiece

STATUS_EVERY_S: Final = 0.25
"""How often workers are told how the models are, where that changed."""
CONNECT_TIMEOUT_S: Final = 30.0
EXCHANGES_MAX: Final = 2**31
_UNAVAILABLE: Final = 503

Status = TypeVar("Status")
_log = logging.getLogger("mixgate.workers")


class LocalAnswer(Protocol):
    """An answer of the backend's."""

    @property
    def status(self) -> int:
        """As of HTTP."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case."""
        ...

    async def read(self) -> bytes:
        """More of it; empty at the end."""
        ...

    def close(self) -> None:
        """Nobody wants the rest."""
        ...


class Backend(Protocol):
    """The local backend, as far as the owner needs it."""

    async def start(self) -> None:
        """Begin."""
        ...

    async def aclose(self) -> None:
        """End."""
        ...

    def models(self) -> Iterable[Any]:
        """Every model and how it is."""
        ...

    async def send(self, request: Any, *, connect_timeout_s: float) -> LocalAnswer:
        """Ask a model."""
        ...


class LocalWindow:
    """The owner's side for one worker.

    Args:
        backend: What answers.
        tell: Says something to the worker.
    """

    def __init__(self, backend: Backend, tell: Callable[[Any], None]) -> None:
        self._backend = backend
        self._tell = tell
        self._exchanges: dict[int, asyncio.Task[None]] = {}

    def ask(self, asked: LocalAsked) -> None:
        """A request came."""
        self._exchanges[asked.exchange] = asyncio.create_task(self._pass_on(asked))

    def drop(self, exchange: int) -> None:
        """Nobody wants the rest of it."""
        task = self._exchanges.pop(exchange, None)
        if task is not None:
            task.cancel()

    def close(self) -> None:
        """The worker is gone."""
        for exchange in list(self._exchanges):
            self.drop(exchange)

    async def _pass_on(self, asked: LocalAsked) -> None:
        try:
            answer = await self._backend.send(asked, connect_timeout_s=CONNECT_TIMEOUT_S)
            try:
                self._tell(LocalHead(asked.exchange, answer.status, dict(answer.headers)))
                while data := await answer.read():
                    self._tell(LocalPiece(asked.exchange, data))
                self._tell(LocalPiece(asked.exchange, b""))
            finally:
                answer.close()
        except Exception:  # noqa: BLE001 - the worker is told; logged
            _log.exception("a request to a local model could not be passed on")
            self._tell(LocalPiece(asked.exchange, b""))
        finally:
            self._exchanges.pop(asked.exchange, None)


class SharedAnswer:
    """An answer on its way to a worker: providers' WireResponse by shape."""

    body: bytes | None = None
    """Its lines are read, even where they come all at once."""

    def __init__(self, status: int, headers: Mapping[str, str], on_close: Callable[[], None]) -> None:
        self.status = status
        self.headers = headers
        self._pieces: list[bytes] = []
        self._complete = False
        self._on_close = on_close
        self._arrived = asyncio.Event()

    async def read(self) -> bytes:
        """The bytes that came since the last call; empty once there are no more."""
        while not self._pieces and not self._complete:
            self._arrived.clear()
            await self._arrived.wait()
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data

    def close(self, *, ended: bool = False) -> None:  # noqa: ARG002  # the seam's: our body ends with its last line
        """Nobody wants the rest. Idempotent."""
        if not self._complete:
            self._on_close()
        self._complete = True
        self._pieces.clear()
        self._arrived.set()

    def add(self, data: bytes) -> None:
        """More came; empty: that was all."""
        if self._complete:
            return
        if data:
            self._pieces.append(data)
        else:
            self._complete = True
        self._arrived.set()


class SharedModels(Generic[Status]):
    """The local backend as a worker has it.

    Args:
        line: To the owner, which has the real one.
        status_of: A model's state from its members.
    """

    def __init__(self, line: OwnerLine, status_of: Callable[[Mapping[str, Any]], Status]) -> None:
        self._line = line
        self._status_of = status_of
        self._statuses: tuple[Status, ...] = ()
        self._models: tuple[Mapping[str, Any], ...] = ()
        self._number = 0
        self._heads: dict[int, asyncio.Future[SharedAnswer]] = {}
        self._answers: dict[int, SharedAnswer] = {}
        line.on_local = self._hear

    async def start(self) -> None:
        """The owner does."""

    async def aclose(self) -> None:
        """The owner does."""

    def models(self) -> tuple[Status, ...]:
        """How they are."""
        return self._statuses

    async def send(self, request: Any, *, connect_timeout_s: float) -> SharedAnswer:  # noqa: ARG002  # the seam's
        """Ask a model, wherever it runs on this machine."""
        if not self._line.up:
            return self._refusal()
        self._number = number = self._number % EXCHANGES_MAX + 1
        head: asyncio.Future[SharedAnswer] = asyncio.get_running_loop().create_future()
        self._heads[number] = head
        self._line.tell(LocalAsked(number, request.url, request.body, request.stream, request.caller))
        try:
            return await head
        except asyncio.CancelledError:
            self._line.tell(LocalDropped(number))
            raise
        finally:
            self._heads.pop(number, None)

    def _hear(self, message: LocalHead | LocalPiece | LocalModels | None) -> None:
        if message is None:
            self._lose()
        elif isinstance(message, LocalModels):
            self._set(message.models)
        elif isinstance(message, LocalHead):
            self._begin(message)
        else:
            self._continue(message)

    def _begin(self, message: LocalHead) -> None:
        head = self._heads.get(message.exchange)
        if head is None or head.done():
            return
        answer = SharedAnswer(message.status, message.headers, lambda: self._drop(message.exchange))
        self._answers[message.exchange] = answer
        head.set_result(answer)

    def _continue(self, message: LocalPiece) -> None:
        answer = self._answers.get(message.exchange)
        if answer is not None:
            answer.add(message.data)
            if not message.data:
                del self._answers[message.exchange]
            return
        head = self._heads.get(message.exchange)
        if head is not None and not head.done() and not message.data:
            head.set_result(self._refusal())

    def _drop(self, exchange: int) -> None:
        if self._answers.pop(exchange, None) is not None:
            self._line.tell(LocalDropped(exchange))

    def _lose(self) -> None:
        """The owner is gone, and the models with it."""
        answers, self._answers = self._answers, {}
        for answer in answers.values():
            answer.add(_line(_GONE))
            answer.add(b"")
        for head in self._heads.values():
            if not head.done():
                head.set_result(self._refusal())
        gone = {"state": "starting", "can_serve": False, "reason": _GONE}
        self._set(tuple({**one, **gone} for one in self._models))

    def _set(self, models: tuple[Mapping[str, Any], ...]) -> None:
        self._models = models
        self._statuses = tuple(self._status_of(one) for one in models)

    @staticmethod
    def _refusal() -> SharedAnswer:
        answer = SharedAnswer(_UNAVAILABLE, {"content-type": "application/json", "retry-after": "2"}, lambda: None)
        answer.add(msgspec.json.encode({"error": {"message": _GONE, "code": "local_not_ready", "param": None}}))
        answer.add(b"")
        return answer


_GONE: Final = "the process that runs the local models is started again"


def _line(words: str) -> bytes:
    """A line of the backend's that ends an answer with an error."""
    error = {"t": "error", "status": _UNAVAILABLE, "code": "local_worker_crashed", "message": words}
    return msgspec.json.encode(error) + b"\n"


async def tell_statuses(backend: Backend, tell_all: Callable[[LocalModels], None]) -> None:
    """Tell every worker how the models are whenever that changes, until cancelled."""
    said: LocalModels | None = None
    with contextlib.suppress(asyncio.CancelledError):
        while True:
            now = statuses_of(backend)
            if now != said:
                said = now
                tell_all(now)
            await asyncio.sleep(STATUS_EVERY_S)


def statuses_of(backend: Backend) -> LocalModels:
    """How the models are."""
    return LocalModels(tuple(msgspec.to_builtins(one) for one in backend.models()))
