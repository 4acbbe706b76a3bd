"""Whose turn it is: walks a Plan, one Attempt after the other, within every cap, cool-down and budget.

Decides and counts; waits for nothing and asks nobody. Times are the loop's clock, passed in.
"""

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

from gateway.attempts import ATTEMPTS_MAX, ATTEMPTS_PER_ENDPOINT_MAX, Why
from gateway.errors import RestingError, most_useful
from gateway.health import Health, Permit, RetryBudget
from gateway.retries import ALONE_WAIT_MAX_S, may_do_better, pause_before_again
from gateway.routing.candidate import Candidate, Plan
from providers.errors import MixgateError, ProviderError

LEFT_MIN_S: Final = 1.0
"""With less time left no further Attempt is started; a tenth of the whole where that is less."""
RETRY_AFTER_MAX_S: Final = 60.0


class Turn(Struct, frozen=True, gc=False):
    """One Attempt that may be made now. Its permit has been taken and must be given back."""

    candidate: Candidate
    permit: Permit
    why: Why


class Turns:
    """Gives one Turn after the other."""

    __slots__ = (
        "_again",
        "_attempts",
        "_borrowed",
        "_budget",
        "_candidates",
        "_deadline_s",
        "_draw",
        "_health",
        "_left_min_s",
        "_max",
        "_patience_s",
        "_plan",
        "_position",
        "_tried",
        "errors",
        "last",
    )

    def __init__(
        self,
        plan: Plan,
        health: Health,
        budget: RetryBudget,
        *,
        now_s: float,
        total_s: float,
        draw: float,
        attempts_max: int = ATTEMPTS_MAX,
    ) -> None:
        self._plan = plan
        self._candidates = plan.candidates + plan.resting if plan.resting else plan.candidates
        self._health = health
        self._budget = budget
        budget.begin(now_s)
        self._borrowed = False
        self._deadline_s = now_s + total_s
        self._left_min_s = min(LEFT_MIN_S, total_s / 10)
        self._draw = draw
        self._max = attempts_max
        self._position = 0
        self._attempts = 0
        self._tried: list[str] = []
        self._again = False
        self._patience_s = ALONE_WAIT_MAX_S
        self.last: Turn | None = None
        self.errors: list[ProviderError] = []
        """How the Attempts so far failed."""

    @property
    def others(self) -> bool:
        """Whether somebody who may well answer can be asked after the running Attempt."""
        return self._position < len(self._plan.candidates) and self._attempts < self._max

    @property
    def may_repeat(self) -> bool:
        """Whether one more Attempt of any kind is within what a request may have."""
        return self._attempts < self._max

    @property
    def _untried(self) -> int:
        """How many who may well answer have not had their turn."""
        return len(self._plan.candidates) - self._position

    def next(self, now_s: float) -> Turn | float:
        """The next Turn, or how many seconds to wait before calling again.

        Raises:
            MixgateError: There is none left.
        """
        if self._attempts and now_s + self._left_min_s > self._deadline_s:
            raise self._nobody(now_s)
        if self._again and self.last is not None and self._attempts < self._max:
            self._again = False
            turn = self._enter(self.last.candidate, now_s, "again")
            if turn is not None:
                return turn
        while self._position < len(self._candidates):
            candidate = self._candidates[self._position]
            step = self._step(candidate, now_s)
            if isinstance(step, float):
                return step
            self._position += 1
            if step is not None:
                return step
        raise self._nobody(now_s)

    def end(self) -> None:
        """The request is over, however it ended."""
        self._repay()
        self._budget.end()

    def insist(self) -> None:
        """The next Turn goes to the same Endpoint, which is to be asked differently."""
        self._again = True

    def hedge(self, now_s: float) -> Turn | None:
        """A Turn beside the running one, for the next who may well answer; None: there is none."""
        while self.others:
            candidate = self._candidates[self._position]
            self._position += 1
            turn = self._enter(candidate, now_s, "hedge")
            if turn is not None:
                return turn
        return None

    def repeat(self, now_s: float, why: Why) -> Turn:
        """The same Endpoint once more, outside the order: it did answer, but not so that it can be used."""
        assert self.last is not None  # noqa: S101 (it answered)
        turn = self._enter(self.last.candidate, now_s, why)
        return turn or Turn(self.last.candidate, Permit.REFUSED, why)

    def failed(self, error: ProviderError, now_s: float) -> float | None:
        """Book how the last Attempt failed. Gives how long to wait before the next; None: there shall be none."""
        self._repay()
        self.errors.append(error)
        if not error.retryable:
            return None
        turn = self.last
        assert turn is not None  # noqa: S101 (it failed)
        endpoint = turn.candidate.endpoint
        if (
            turn.permit is not Permit.NORMAL
            or self._tried.count(endpoint.id) >= ATTEMPTS_PER_ENDPOINT_MAX
            or self._attempts >= self._max
            or (self._attempts > len(set(self._tried)) and self._attempts + 1 + self._untried > self._max)
        ):
            return 0.0  # and after its first repeat a request repeats no more where somebody's turn would not come
        pause_s = pause_before_again(error, explicit=self._plan.explicit, alone=not self.others, draw=self._draw)
        if pause_s is None or not self._may_wait(pause_s, now_s) or not self._borrow(now_s):
            return 0.0
        self._patience_s -= pause_s
        self._again = True
        return pause_s

    def _step(self, candidate: Candidate, now_s: float) -> Turn | float | None:
        """A Turn for this Candidate, a wait for it, or None: not this one."""
        endpoint = candidate.endpoint
        if self._attempts >= self._max and (endpoint.id in self._tried or not endpoint.local):
            return None
        last = self.last
        if last is not None and self.errors and not may_do_better(self.errors[-1], last.candidate.endpoint, endpoint):
            return None
        turn = self._enter(candidate, now_s, "planned")
        if turn is not None or self._position < len(self._plan.candidates):
            return turn
        return self._rouse(candidate, now_s)

    def _rouse(self, candidate: Candidate, now_s: float) -> Turn | float | None:
        """The same for one that rests, now that nobody else is left."""
        observation = candidate.observation
        if observation.standing == "open":
            return self._enter(candidate, now_s, "panic") if self._borrow(now_s) else None
        wait_s = observation.until_s - now_s
        if observation.standing != "parked" or wait_s <= 0 or not self._may_wait(wait_s, now_s):
            return None
        self._patience_s -= wait_s
        return wait_s

    def _enter(self, candidate: Candidate, now_s: float, why: Why) -> Turn | None:
        name = candidate.endpoint.id
        permit = self._health.of(name).enter(now_s, panic=why == "panic")
        if permit is Permit.REFUSED:
            return None
        self._attempts += 1
        self._tried.append(name)
        self.last = Turn(candidate, permit, why)
        return self.last

    def _may_wait(self, wait_s: float, now_s: float) -> bool:
        """Whether this request has so much patience, and time, left."""
        return wait_s <= self._patience_s and now_s + wait_s + self._left_min_s <= self._deadline_s

    def _borrow(self, now_s: float) -> bool:
        self._borrowed = self._borrowed or self._budget.take(now_s)
        return self._borrowed

    def _repay(self) -> None:
        if self._borrowed:
            self._borrowed = False
            self._budget.give_back()

    def _nobody(self, now_s: float) -> MixgateError:
        """What to say when nobody is left to ask."""
        on_trial = self.last is not None and self.last.permit is not Permit.NORMAL and self._plan.resting
        if self.errors and not on_trial:  # a trial that failed, when all others rest, says no more than that all rest
            return most_useful(self.errors)
        waits_s = [one.observation.until_s - now_s for one in self._plan.resting if one.observation.until_s > now_s]
        soonest_s = min([*waits_s, RETRY_AFTER_MAX_S]) if waits_s else 1.0
        return RestingError(
            f"all that could answer for {self._plan.route!r} is resting after failures or rate limits: "
            f"{_names(self._plan.resting or self._plan.candidates)}; ask again in {soonest_s:.0f} s",
            retry_after_s=max(1.0, soonest_s),
        )


def _names(candidates: Sequence[Candidate]) -> str:
    shown = [f"{one.endpoint.id} ({one.observation.standing})" for one in candidates[:8]]
    return ", ".join(shown) + (", ..." if len(candidates) > len(shown) else "")
