"""What processes tell one another by way of Redis and can do without: hints, sessions and answers."""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from hashlib import blake2b
from typing import Any, Final, Literal

from gateway.sharing.base import (
    ANSWER_MAX_BYTES,
    ANSWER_TTL_MAX_S,
    HINT_MAX_S,
    SESSION_NAME_MAX_BYTES,
    SESSION_TTL_S,
    UNDROPPED_MAX,
    Hint,
)
from gateway.sharing.lane import Lane, LaneDownError, ScriptError
from gateway.sharing.memory import HINTS_MAX, MemorySessions

LOOK_WAIT_MAX_S: Final = 0.05
"""How long a request waits for something that it can do without."""
HINTS_TTL_S: Final = 600


class RedisHints:
    """What others say of Endpoints, fetched every now and then."""

    def __init__(self, lane: Lane, prefix: str, name: str) -> None:
        self._lane = lane
        self._key = f"{prefix}hints"
        self._name = name
        self._heard: list[Hint] = []

    def tell(self, hint: Hint) -> None:
        """Tell the others."""
        said = f"{hint.since_unix_s:.3f}|{hint.until_unix_s:.3f}|{self._name}"
        self._lane.tell(("HSET", self._key, f"{hint.kind}|{hint.endpoint_id}", said))
        self._lane.tell(("EXPIRE", self._key, HINTS_TTL_S))

    def heard(self, unix_s: float) -> Sequence[Hint]:
        """What others say now."""
        return [hint for hint in self._heard if unix_s < hint.until_unix_s] if self._heard else ()

    async def fetch(self, unix_s: float) -> None:
        """Look what they say.

        Raises:
            LaneDownError: Nobody knows.
        """
        answer: Any = await self._lane.ask_within(("HGETALL", self._key), 1.0)
        found: list[Hint] = []
        passed: list[bytes] = []
        for field, said in zip(answer[::2], answer[1::2], strict=True):
            hint = _hint_of(bytes(field), bytes(said), self._name, unix_s)
            if hint is None:
                passed.append(bytes(field))
            elif hint.endpoint_id:
                found.append(hint)
        self._heard = found[:HINTS_MAX]
        if passed:
            self._lane.tell(("HDEL", self._key, *passed[:HINTS_MAX]))


_OWN: Final = Hint("", "open", 0, 0)


def _hint_of(field: bytes, said: bytes, own: str, unix_s: float) -> Hint | None:
    """What one says; a Hint without an Endpoint where it is this process itself, None where it has passed."""
    try:
        kind, _, endpoint_id = field.decode().partition("|")
        since, until, name = said.decode().split("|", 2)
        since_s, until_s = float(since), min(float(until), unix_s + HINT_MAX_S)
    except (UnicodeDecodeError, ValueError):
        return None
    if not unix_s < until_s or kind not in {"open", "parked"}:
        return None
    known: Literal["open", "parked"] = "open" if kind == "open" else "parked"
    return _OWN if name == own else Hint(endpoint_id, known, min(since_s, unix_s), until_s)


class RedisSessions:
    """Conversations of all processes; where Redis does not answer at once, those of this one."""

    def __init__(self, lane: Lane, prefix: str, wait_max_s: float = LOOK_WAIT_MAX_S) -> None:
        self._lane = lane
        self._prefix = f"{prefix}v:"
        self._own = MemorySessions()
        self._wait_max_s = wait_max_s

    async def find(self, session: str, unix_s: float) -> str | None:
        """Who answered last."""
        if not self._lane.brisk:
            return await self._own.find(session, unix_s)
        try:
            found = await self._lane.ask_within(("GET", self._key(session)), self._wait_max_s)
        except (LaneDownError, ScriptError):
            return await self._own.find(session, unix_s)
        return str(found, "utf-8", "replace") if isinstance(found, bytes) else None

    def remember(self, session: str, endpoint_id: str, unix_s: float) -> None:
        """This Endpoint answered."""
        if len(session.encode()) > SESSION_NAME_MAX_BYTES:
            return
        self._own.remember(session, endpoint_id, unix_s)
        self._lane.tell(("SET", self._key(session), endpoint_id, "EX", int(SESSION_TTL_S)))

    def _key(self, session: str) -> str:
        return self._prefix + blake2b(session.encode(), digest_size=16).hexdigest()


class RedisAnswers:
    """Answers that all processes keep for one another, over a connection of their own, as they are large.

    What is to be forgotten while Redis is away or slow is remembered here, is not found here any more, and is forgotten
    there as soon as that can be said: it may be somebody who signs out.
    """

    def __init__(self, lane: Lane, prefix: str, begin: Callable[[], None], wait_max_s: float = LOOK_WAIT_MAX_S) -> None:
        self._lane = lane
        self._prefix = f"{prefix}x:"
        self._begin = begin
        self._wait_max_s = wait_max_s
        self._undropped: dict[str, None] = {}
        lane.on_up = self._drop_late

    async def get(self, tenant: str, digest: str, unix_s: float) -> bytes | None:  # noqa: ARG002 (Redis has its own clock)
        """What was put."""
        self._begin()
        key = self._key(tenant, digest)
        self._drop_late()
        if not self._lane.brisk or key in self._undropped:
            return None
        try:
            found = await self._lane.ask_within(("GET", key), self._wait_max_s)
        except (LaneDownError, ScriptError):
            return None
        return found if isinstance(found, bytes) else None

    def put(self, tenant: str, digest: str, data: bytes, ttl_s: float, unix_s: float) -> None:  # noqa: ARG002 (as above)
        """Keep it for a while."""
        ttl_ms = int(min(ttl_s, ANSWER_TTL_MAX_S) * 1000)
        if ttl_ms > 0 and len(data) <= ANSWER_MAX_BYTES:
            self._begin()
            key = self._key(tenant, digest)
            self._drop_late()
            if self._lane.brisk and key not in self._undropped:
                self._lane.tell(("SET", key, data, "PX", ttl_ms))

    def drop(self, tenant: str, digest: str) -> None:
        """Forget it."""
        self._begin()
        while len(self._undropped) >= UNDROPPED_MAX:
            del self._undropped[next(iter(self._undropped))]
        self._undropped[self._key(tenant, digest)] = None
        self._drop_late()

    def _drop_late(self) -> None:
        """Have forgotten what is to be."""
        if self._undropped and self._lane.brisk:
            late, self._undropped = self._undropped, {}
            for key in late:
                try:
                    self._lane.ask(("DEL", key)).add_done_callback(partial(self._dropped, key))
                except LaneDownError:
                    self._undropped[key] = None

    def _dropped(self, key: str, done: "asyncio.Future[Any]") -> None:
        if done.cancelled() or done.exception() is not None:
            self._undropped[key] = None

    def _key(self, tenant: str, digest: str) -> str:
        # Of the length first, so that no two pairs have one name.
        return f"{self._prefix}{len(tenant)}:{tenant}:{digest}"
