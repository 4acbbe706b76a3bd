"""Of a worker's StateStore what it has from the owner and can do without: hints, conversations, answers, tries."""

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from gateway.sharing.base import ANSWER_MAX_BYTES, SESSION_NAME_MAX_BYTES, UNDROPPED_MAX, Hint
from gateway.sharing.memory import HintBoard
from gateway.sharing.tries import TRY_WAIT_MAX_S, OwnTries
from gateway.workers.line import OwnerLine
from gateway.workers.link import AwayError, DeclinedError
from gateway.workers.messages import AnswerAsked, AnswerTold, HintTold, SessionAsked, SessionTold, TryAsked

GIFT_WAIT_S: Final = 0.25
"""How long one waits for what would be nice to have."""


class OwnerHints:
    """What workers tell one another of Endpoints."""

    def __init__(self, line: OwnerLine) -> None:
        self._line = line
        self._board = HintBoard()

    def tell(self, hint: Hint) -> None:
        """Tell the others."""
        self._line.tell(HintTold(hint))

    def hear(self, hint: Hint) -> None:
        """Another one tells."""
        self._board.tell("others", hint)

    def heard(self, unix_s: float) -> Sequence[Hint]:
        """What others say."""
        return self._board.heard("", unix_s)


class OwnerSessions:
    """Which Endpoint answered a conversation last, whichever worker it came to."""

    def __init__(self, line: OwnerLine) -> None:
        self._line = line

    async def find(self, session: str, unix_s: float) -> str | None:
        """Who answered last."""
        found: str | None = await _gift(self._line, SessionAsked(session, unix_s), str | None)
        return found

    def remember(self, session: str, endpoint_id: str, unix_s: float) -> None:
        """This Endpoint answered."""
        if len(session.encode()) <= SESSION_NAME_MAX_BYTES:
            self._line.tell(SessionTold(session, endpoint_id, unix_s))


class OwnerAnswers:
    """Answers kept by the owner. What is to be forgotten while it is away, is as soon as it is back."""

    def __init__(self, line: OwnerLine) -> None:
        self._line = line
        self._undropped: dict[tuple[str, str], None] = {}

    async def get(self, tenant: str, digest: str, unix_s: float) -> bytes | None:
        """What was put."""
        self._drop_late()
        if (tenant, digest) in self._undropped:
            return None
        found: bytes | None = await _gift(self._line, AnswerAsked(tenant, digest, unix_s), bytes | None)
        return found

    def put(self, tenant: str, digest: str, data: bytes, ttl_s: float, unix_s: float) -> None:
        """Keep it for a while."""
        if len(data) <= ANSWER_MAX_BYTES and ttl_s > 0:
            self._drop_late()
            self._line.tell(AnswerTold(tenant, digest, data, ttl_s, unix_s))

    def drop(self, tenant: str, digest: str) -> None:
        """Forget it."""
        while len(self._undropped) >= UNDROPPED_MAX:
            del self._undropped[next(iter(self._undropped))]
        self._undropped[tenant, digest] = None
        self._drop_late()

    def _drop_late(self) -> None:
        if self._undropped and self._line.up:
            for tenant, digest in self._undropped:
                self._line.tell(AnswerTold(tenant, digest, None, 0.0, 0.0))
            self._undropped = {}


class OwnerTries:
    """Tries to sign in, counted by the owner; while it is away, by this process."""

    def __init__(self, line: OwnerLine) -> None:
        self._line = line
        self._own = OwnTries()

    async def count(self, name: str, now_s: float) -> float | None:
        """Count a try."""
        try:
            async with asyncio.timeout(2 * TRY_WAIT_MAX_S):
                wait_s: float | None = await self._line.ask(TryAsked(name, now_s), float | None)
        except (TimeoutError, AwayError, DeclinedError):
            return await self._own.count(name, now_s)
        if wait_s is None:
            self._own.note(name, now_s)
        return wait_s


async def _gift(line: OwnerLine, message: Any, kind: Any) -> Any:
    """What would be nice to have: None where it takes too long."""
    try:
        async with asyncio.timeout(GIFT_WAIT_S):
            return await line.ask(message, kind)
    except (TimeoutError, AwayError, DeclinedError):
        return None
