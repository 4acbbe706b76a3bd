"""Whose turn it is among requests that wait for a slot: deficit round robin by tokens, one lane for each caller. Pure.

Every caller gets the same share of the model, however much it asks for: each turn brings its lane QUANTUM_TOKENS, and
its oldest request goes once the lane has what that costs. Costs are estimates; what an answer really took is charged
to its caller afterwards. Bounded: when all places are taken, whoever holds most of them gives one up or is refused.
(Shreedhar and Varghese, "Efficient fair queueing using deficit round robin", 1995.)
"""

from collections import deque
from collections.abc import Callable, Iterator
from typing import Final, Generic, TypeVar

QUANTUM_TOKENS: Final = 64
"""What a caller gets for each turn: no more than this is it ahead of another by the order of turns alone."""
LEAD_MIN_COUNT: Final = 2
"""A newcomer takes the place of another caller who has so many more waiting; with less they would swap for ever."""

_T = TypeVar("_T")


class _Lane(Generic[_T]):
    """What waits of one caller, the oldest first, each with its cost."""

    __slots__ = ("credit_tokens", "had_turn", "waiting")

    def __init__(self) -> None:
        self.waiting: deque[tuple[_T, int]] = deque()
        self.credit_tokens = 0
        """What it may spend; below 0 after answers that were longer than estimated."""
        self.had_turn = False
        """Whether the turn that it has now has brought its tokens."""

    @property
    def turns_needed(self) -> int:
        """How many more turns its oldest request has to wait for."""
        missing = self.waiting[0][1] - self.credit_tokens
        return max(0, -(-missing // QUANTUM_TOKENS))

    def total_tokens(self) -> int:
        return sum(cost for _, cost in self.waiting)


class FairQueue(Generic[_T]):
    """Requests of several callers. Never holds an empty lane, so it is as small as what waits in it."""

    __slots__ = ("_count", "_lanes")

    def __init__(self) -> None:
        self._lanes: dict[str, _Lane[_T]] = {}  # in the order of their turns
        self._count = 0

    def __len__(self) -> int:
        """How many wait."""
        return self._count

    def __iter__(self) -> Iterator[_T]:
        """All that wait, lane by lane."""
        return (item for lane in self._lanes.values() for item, _ in lane.waiting)

    def count_of(self, caller: str) -> int:
        """How many of one caller wait."""
        lane = self._lanes.get(caller)
        return 0 if lane is None else len(lane.waiting)

    def push(self, caller: str, item: _T, cost_tokens: int) -> None:
        """Let one wait, behind all others of its caller."""
        lane = self._lanes.get(caller)
        if lane is None:
            lane = self._lanes[caller] = _Lane()
        lane.waiting.append((item, cost_tokens))
        self._count += 1

    def pop(self) -> _T | None:
        """Take out whoever's turn it is; None when nobody waits."""
        if not self._lanes:
            return None
        # Rounds in which nobody could go are passed over in one step, so a long prompt costs no more time than a short.
        idle_rounds = min(lane.turns_needed for lane in self._lanes.values()) - 1
        if idle_rounds > 0:
            for lane in self._lanes.values():
                lane.credit_tokens += idle_rounds * QUANTUM_TOKENS
        while True:
            caller, lane = next(iter(self._lanes.items()))
            if not lane.had_turn:
                lane.had_turn = True
                lane.credit_tokens += QUANTUM_TOKENS
            item, cost_tokens = lane.waiting[0]
            if cost_tokens <= lane.credit_tokens:
                lane.waiting.popleft()
                lane.credit_tokens -= cost_tokens
                self._count -= 1
                if not lane.waiting:
                    del self._lanes[caller]
                return item
            lane.had_turn = False
            self._lanes[caller] = self._lanes.pop(caller)

    def charge(self, caller: str, tokens: int) -> None:
        """An answer took so many tokens more than estimated (below 0: fewer). Lost on a caller of whom none waits."""
        lane = self._lanes.get(caller)
        if lane is not None:
            lane.credit_tokens -= tokens

    def remove(self, wanted: Callable[[_T], bool]) -> _T | None:
        """Take out the first one that is wanted, wherever it waits; None if there is none."""
        for caller, lane in self._lanes.items():
            for place, (item, _) in enumerate(lane.waiting):
                if wanted(item):
                    self._take(caller, lane, place)
                    return item
        return None

    def give_way(self, caller: str) -> _T | None:
        """Take out the newest of whoever has most waiting, to make room for a newcomer of `caller`.

        None where `caller` itself has about as many as anybody: then it is the newcomer who is refused.
        """
        if not self._lanes:
            return None
        most, lane = max(self._lanes.items(), key=lambda pair: (len(pair[1].waiting), pair[1].total_tokens()))
        if len(lane.waiting) - self.count_of(caller) < LEAD_MIN_COUNT:
            return None
        item = lane.waiting[-1][0]
        self._take(most, lane, len(lane.waiting) - 1)
        return item

    def ahead_of(self, caller: str, cost_tokens: int) -> Iterator[_T]:
        """Who will have had a slot before a newcomer of `caller` gets one, about.

        All others of its own lane; of each other lane as much as this lane costs up to and including the newcomer.
        """
        own = self._lanes.get(caller)
        due_tokens = cost_tokens + (0 if own is None else own.total_tokens())
        for lane in self._lanes.values():
            passed_tokens = 0
            for item, cost in lane.waiting:
                if lane is not own and passed_tokens >= due_tokens:
                    break
                passed_tokens += cost
                yield item

    def _take(self, caller: str, lane: _Lane[_T], place: int) -> None:
        del lane.waiting[place]
        self._count -= 1
        if not lane.waiting:
            del self._lanes[caller]
