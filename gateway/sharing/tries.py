"""How often somebody tried what is not to be tried often, like a password: of one process, or of all together."""

from collections import OrderedDict, deque
from hashlib import blake2b
from typing import Final

from gateway.sharing.base import TRIES_MAX, TRIES_WINDOW_S
from gateway.sharing.lane import LaneDownError, ScriptError
from gateway.sharing.membership import Member

TRIERS_MAX: Final = 4096
"""Names whose tries are remembered; those that did not try longest are forgotten."""
TRY_WAIT_MAX_S: Final = 1.0
"""How long a try waits to be counted with those at other processes."""


class OwnTries:
    """Those of this process."""

    def __init__(self) -> None:
        self._by_name: OrderedDict[str, deque[float]] = OrderedDict()

    async def count(self, name: str, now_s: float) -> float | None:
        """Count a try."""
        tries = self._of(name)
        if len(tries) == TRIES_MAX and now_s < tries[0] + TRIES_WINDOW_S:
            return tries[0] + TRIES_WINDOW_S - now_s
        tries.append(now_s)
        return None

    def note(self, name: str, now_s: float) -> None:
        """A try that was counted elsewhere: should nobody there answer any more, it counts here."""
        self._of(name).append(now_s)

    def __len__(self) -> int:
        return len(self._by_name)

    def _of(self, name: str) -> deque[float]:
        tries = self._by_name.setdefault(name, deque(maxlen=TRIES_MAX))
        self._by_name.move_to_end(name)
        if len(self._by_name) > TRIERS_MAX:
            self._by_name.popitem(last=False)
        return tries


class RedisTries:
    """Those of all processes; where Redis does not answer, of this one.

    Args:
        member: This process's place among them.
    """

    def __init__(self, member: Member) -> None:
        self._member = member
        self._own = OwnTries()

    async def count(self, name: str, now_s: float) -> float | None:
        """Count a try."""
        lane = self._member.lane
        # Whoever tries need not be known to those who can read there.
        digest = blake2b(name.encode("utf-8", "replace"), digest_size=16).hexdigest()
        command = self._member.plain("try", digest, TRIES_MAX, int(TRIES_WINDOW_S * 1000))
        try:
            wait_ms = int(await lane.ask_within(command, TRY_WAIT_MAX_S))
        except (LaneDownError, ScriptError):
            return await self._own.count(name, now_s)
        if wait_ms > 0:
            return wait_ms / 1000
        self._own.note(name, now_s)
        return None
