"""How one Endpoint is doing: whether it may be asked, what became of that, and all of it as one value. Pure."""

from collections.abc import Callable
from math import inf
from typing import Final

from gateway.health.answers import Answers
from gateway.health.breaker import Breaker
from gateway.health.evidence import LOOK_HOLDS_S, Complaints, Looks
from gateway.health.kinds import COUNTED, FailureKind, Permit, Result
from gateway.health.pace import Pace
from gateway.health.parking import Cap, Parking
from gateway.health.reasons import WHY_LATER
from gateway.health.uptime import Share, Uptime
from gateway.observation import UNOBSERVED, MinuteRow, Observation, Quantiles, Standing

DISABLED_S: Final = 300.0
"""How long it is left alone after it refused our key or did not know the model."""
REPROBE_S: Final = 30.0
"""When to look again at a disabled Endpoint that failed for another reason when it was looked at."""
TAKEN_S: Final = 1.0
"""When to look again at an Endpoint whose one permit is taken."""
PANIC_MAX: Final = 2
"""So many Attempts at once go to an Endpoint that is open, when there is no better one."""
STILL_S: Final = 1860.0
"""After so long without an Attempt, no figure changes any more with time alone."""

OnChange = Callable[[str, Standing, str, float], None]
"""Told of each change: the Endpoint's id, its new standing, why, and when by the monotonic clock."""


class EndpointHealth:
    """One Endpoint. `enter` before an Attempt, `leave` once after it."""

    __slots__ = (
        "_announced",
        "_answers",
        "_breaker",
        "_calm_until_s",
        "_cap",
        "_capacity",
        "_cold_s",
        "_complaints",
        "_disabled_until_s",
        "_figures_until_s",
        "_fresh_until_s",
        "_gated",
        "_last_s",
        "_latency",
        "_looks",
        "_may_open",
        "_observation",
        "_on_change",
        "_panics",
        "_parking",
        "_probing",
        "_restless_until_s",
        "_throughput",
        "_troubled",
        "_uptime",
        "_uptime_share",
        "_waiting",
        "id",
        "in_flight",
        "last_ok_s",
        "pace",
        "well",
    )

    def __init__(
        self,
        endpoint_id: str,
        random: Callable[[], float],
        may_open: Callable[[str], bool],
        on_change: OnChange | None = None,
    ) -> None:
        self.id = endpoint_id
        self.in_flight = 0
        """Attempts that were sent and have not ended."""
        self.well = True  # what was observed last is healthy, and no reason to ask it less than usual
        self.pace = Pace()
        self._breaker = Breaker(random)
        self._parking = Parking(random)
        self._cap = Cap()
        self._answers = Answers()
        self._uptime = Uptime()
        self._may_open = may_open
        self._on_change = on_change
        self._gated = False  # whether anything but the cap may stand in the way; put right by `_admit`
        self._disabled_until_s: float | None = None
        self._probing = False
        self._panics = 0
        self._complaints = Complaints()
        self._looks = Looks()
        self._last_s = self.last_ok_s = -inf
        self._troubled = False
        """Whether something has gone wrong, or looked so, that the next good answer makes up for."""
        self._restless_until_s = -inf
        self._waiting = 0
        self._capacity: int | None = None
        self._cold_s = 0.0
        self._announced: Standing = "healthy"
        self._observation = UNOBSERVED
        self._fresh_until_s = -inf
        self._calm_until_s = -inf  # until then good answers change nothing of the Observation but counts and means
        self._figures_until_s = -inf
        self._latency: Quantiles | None = None
        self._throughput: Quantiles | None = None
        self._uptime_share: float | None = None

    # Before and after an Attempt.

    def enter(self, now_s: float, *, panic: bool = False) -> Permit:
        """Ask whether an Attempt may be sent now; it counts as sent unless REFUSED.

        Args:
            now_s: The monotonic clock.
            panic: No Endpoint is any better: an open one may be asked too. A disabled or parked one may not.
        """
        permit = Permit.NORMAL
        if self._gated or self._cap.limit is not None:
            permit = self._admit(now_s, panic=panic)
            if permit is Permit.REFUSED:
                return permit
        self.in_flight += 1
        self._fresh_until_s = -inf
        return permit

    def leave(self, permit: Permit, result: Result, now_s: float) -> None:
        """Say what became of an Attempt, exactly once for each permit.

        One that was sent although it was REFUSED is counted in the figures, and nothing follows from it.
        """
        if permit is Permit.PROBE:
            self._probing = False
        elif permit is Permit.PANIC:
            self._panics -= 1
        if result.failure is None:
            self._succeed(permit, result, now_s)
        elif not result.lagged:
            self._fail(permit, result.failure, result, now_s)
        if result.failure is not None or permit is not Permit.NORMAL:
            self._calm_until_s = -inf
        if permit is not Permit.REFUSED and self.in_flight > 0:
            self.in_flight -= 1
        self._fresh_until_s = -inf

    def note_probe(self, ok: bool, now_s: float) -> None:  # noqa: FBT001 (its one fact)
        """Count a free look at the Endpoint. It opens and closes nothing.

        An Endpoint that real requests say too little about goes behind the others after three bad ones in a row, until
        two good ones.
        """
        self._uptime.count("probe_ok" if ok else "probe_fail")
        self._looks.add(now_s, ok=ok)
        self._restless_until_s = max(self._restless_until_s, now_s + LOOK_HOLDS_S + 1.0)
        self._troubled = True
        self._fresh_until_s = self._calm_until_s = -inf

    def note_capacity(self, waiting: int, capacity: int | None, start_s: float = 0.0) -> None:
        """What a local worker says of itself.

        Args:
            waiting: Requests that wait there and are not counted as on their way here.
            capacity: Its slots and the places in its queue; None where unknown.
            start_s: How long it takes to load its model first; 0 once it is there.
        """
        if (waiting, capacity, start_s) != (self._waiting, self._capacity, self._cold_s):
            self._waiting, self._capacity, self._cold_s = waiting, capacity, start_s
            self._fresh_until_s = -inf

    # What others may know of it.

    def observe(self, now_s: float) -> Observation:
        """How it is doing. The same object until something changed or a second passed."""
        if now_s < self._fresh_until_s:
            return self._observation
        if now_s < self._calm_until_s:
            return self._count_anew(now_s)
        return self._observe_anew(now_s)

    def is_out(self) -> bool:
        """Whether requests stay away from it because it failed: not closed, or disabled."""
        return self._breaker.state != "closed" or self._disabled_until_s is not None

    def is_quiet(self, now_s: float, for_s: float) -> bool:
        """Whether no Attempt ended or is on its way for so long."""
        return not self.in_flight and now_s - self._last_s >= for_s

    def ttft_p95_s(self) -> float | None:
        """The time to the first token that 95 % keep; None with fewer than 20 samples."""
        return self.pace.ttft_p95_s()

    def expected_whole_s(self, output_tokens: int | None = None) -> float | None:
        """How long a whole answer of so many tokens (by default as many as usual) takes; None where unknown."""
        return self.pace.expected_whole_s(output_tokens)

    def share(self, now_s: float, minutes: int) -> Share:
        """Uptime over the last 5, 30 or 1,440 minutes, with the number of answers behind it."""
        return self._uptime.share(now_s, minutes)

    def drain(self, unix_minute: int) -> MinuteRow | None:
        """What came since the last call, as a row of that minute; None if nothing did."""
        return self._uptime.drain(self.id, unix_minute)

    def restore(self, row: MinuteRow, minute: int, now_s: float) -> None:
        """Take up what an earlier process kept, oldest first. `minute` is of the monotonic clock."""
        self._uptime.restore(row, minute)
        self._restless_until_s = now_s + STILL_S
        self._fresh_until_s = self._calm_until_s = self._figures_until_s = -inf

    def _admit(self, now_s: float, *, panic: bool) -> Permit:
        limit = self._cap.settle(self.in_flight, now_s)
        if now_s < self._parking.until_s or (limit is not None and self.in_flight >= limit):
            return Permit.REFUSED
        disabled_s, breaker = self._disabled_until_s, self._breaker
        if disabled_s is None and breaker.state == "closed":
            self._gated = False
            return Permit.NORMAL
        if not self._probing and (breaker.is_due(now_s) if disabled_s is None else now_s >= disabled_s):
            self._probing = True
            breaker.begin_probe()
            if self._announced != "probing":
                self._announce("probing", WHY_LATER["probing"], now_s)
            return Permit.PROBE
        if panic and disabled_s is None and self._panics < PANIC_MAX:
            self._panics += 1
            return Permit.PANIC
        return Permit.REFUSED

    def _succeed(self, permit: Permit, result: Result, now_s: float) -> None:
        self._last_s = self.last_ok_s = now_s
        self._restless_until_s = now_s + STILL_S
        bucket = self.pace.add(result, now_s)
        self._uptime.succeed(now_s, bucket, result.prompt_tokens, result.output_tokens or 0)
        self._answers.add_ok(now_s)
        if self._troubled:
            self._parking.calm()
            self._looks.reset()
            if permit is Permit.NORMAL:
                self._breaker.good()
                self._troubled = False
        if permit is Permit.PROBE:
            self._probe_went_well(now_s)

    def _probe_went_well(self, now_s: float) -> None:
        was_disabled, self._disabled_until_s = self._disabled_until_s is not None, None
        if self._breaker.state == "closed":
            if was_disabled:
                self._announce("healthy", "it takes our key again", now_s)
        elif self._breaker.probe_went_well(now_s):
            # What it did before is over: it would open again with the next failure.
            self._answers.clear()
            self._announce("healthy", "two requests in a row went well", now_s)

    def _fail(self, permit: Permit, kind: FailureKind, result: Result, now_s: float) -> None:
        self._last_s = now_s
        self._restless_until_s = now_s + STILL_S
        self._troubled = True
        if kind == "client" and self._complaints.add(result.caller, now_s, self.last_ok_s):
            kind = "server"
        bucket = -1 if result.ttft_s is None else self.pace.add(result, now_s)
        self._uptime.fail(kind, now_s, bucket, result.prompt_tokens, result.output_tokens or 0)
        if kind in COUNTED:
            self._answers.add_bad(now_s)
            if kind == "overload" and self._cap.limit is not None:
                self._cap.lower(self.in_flight, now_s)
            self._count(permit, kind, now_s)
        elif kind == "rate_limit":
            self._park(permit, result.retry_after_s, now_s)
        elif kind == "auth":
            self._disabled_until_s = now_s + DISABLED_S
            self._gated = True
            self._announce("disabled", "it refused our key or does not know the model", now_s)

    def _count(self, permit: Permit, kind: FailureKind, now_s: float) -> None:
        breaker = self._breaker
        if permit is Permit.PROBE and self._disabled_until_s is not None:
            self._disabled_until_s = now_s + REPROBE_S
        if permit is Permit.PROBE and breaker.state == "half_open":
            self._reopen(f"the trial request failed: {kind}", now_s)
        elif permit is Permit.NORMAL and breaker.state == "closed":
            why = breaker.bad(now_s, connect=kind == "connect")
            if why is None and self._answers.are_mostly_bad(now_s):
                failed, total = self._answers.of_a_minute
                if self._may_open(self.id):
                    why = f"{failed} of {total} requests failed within a minute"
                    breaker.open(now_s)
            if why is not None:
                self._gated = True
                self._announce("open", f"{why}, the last one: {kind}", now_s)

    def _reopen(self, why: str, now_s: float) -> None:
        self._breaker.open(now_s)
        self._announce("open", why, now_s)

    def _park(self, permit: Permit, retry_after_s: float | None, now_s: float) -> None:
        self._cap.lower(self.in_flight, now_s)
        self._parking.refuse(retry_after_s, now_s)
        self._gated = True
        if permit is Permit.PROBE:
            if self._disabled_until_s is not None:
                self._disabled_until_s = now_s + REPROBE_S
            if self._breaker.state == "half_open":
                self._reopen("the trial request was rate limited", now_s)
                return
        if self._disabled_until_s is None and self._breaker.state == "closed" and now_s < self._parking.until_s:
            self._announce("parked", f"rate limited for {self._parking.until_s - now_s:.1f} s", now_s)

    def _announce(self, standing: Standing, why: str, now_s: float) -> None:
        self._announced = standing
        if self._on_change is not None:
            self._on_change(self.id, standing, why, now_s)

    def _observe_anew(self, now_s: float) -> Observation:
        restless = self._probing or now_s < self._restless_until_s
        second_s = float(int(now_s) + 1)
        if now_s >= self._figures_until_s:
            self._figures_until_s = second_s
            self._latency = self.pace.latency(now_s)
            self._throughput = self.pace.throughput(now_s)
            self._uptime_share = self._uptime.current(now_s)
        standing, until_s = self._standing(now_s)
        if standing != self._announced and not self._probing:
            self._announce(standing, WHY_LATER[standing], now_s)
        limit = self._cap.settle(self.in_flight, now_s)
        weight = self._breaker.weight(now_s)
        if limit is not None:
            weight *= max(limit - self.in_flight, 0) / limit
            restless = True
        self._fresh_until_s = second_s if restless else inf
        for moment_s in (self._parking.until_s, self._breaker.until_s, self._disabled_until_s):
            if moment_s is not None and now_s < moment_s < self._fresh_until_s:
                self._fresh_until_s = moment_s
        outage = self._answers.are_an_outage(now_s)
        # One good answer more may make enough of them for a few bad ones to count.
        well = standing == "healthy" and self._answers.are_all_good
        calm = self.well = well and weight == 1.0 and limit is None
        self._calm_until_s = min(second_s, self._fresh_until_s) if calm else -inf
        self._observation = Observation(
            standing,
            until_s,
            outage,
            weight,
            self.in_flight + self._waiting,
            _smaller(limit, self._capacity),
            self._ttft_s(now_s),
            self.pace.tokens_per_s(now_s),
            self._uptime_share,
            self._latency,
            self._throughput,
        )
        return self._observation

    def _count_anew(self, now_s: float) -> Observation:
        """As `_observe_anew`, where nothing but good answers came since: only counts and means have changed."""
        self._fresh_until_s = self._calm_until_s
        self._observation = Observation(
            "healthy",
            0.0,
            False,  # noqa: FBT003 (by position: by name it takes three times as long)
            1.0,
            self.in_flight + self._waiting,
            self._capacity,
            self._ttft_s(now_s),
            self.pace.tokens_per_s(now_s),
            self._uptime_share,
            self._latency,
            self._throughput,
        )
        return self._observation

    def _ttft_s(self, now_s: float) -> float | None:
        """What is usual there, and the time to load the model where that must be done first."""
        usual_s = self.pace.ttft_s(now_s)
        return usual_s if not self._cold_s else (usual_s or 0.0) + self._cold_s

    def _standing(self, now_s: float) -> tuple[Standing, float]:
        """What holds now, and until when. Of several reasons, the one that lasts longest."""
        parked_s, disabled_s, breaker = self._parking.until_s, self._disabled_until_s, self._breaker
        taken_s = now_s + TAKEN_S if self._probing else 0.0
        if disabled_s is not None and (self._probing or now_s < disabled_s):
            return "disabled", max(disabled_s, parked_s, taken_s)
        if now_s < parked_s and not (breaker.state == "open" and parked_s < breaker.until_s):
            return "parked", parked_s
        if disabled_s is not None:
            return "probing", disabled_s
        if breaker.state != "closed":
            free = breaker.is_due(now_s) and not self._probing
            return "probing" if free else "open", max(breaker.until_s, taken_s)
        if self._answers.are_often_bad(now_s):
            return "degraded", 0.0
        looks_down = self._uptime_share is None and self._looks.is_down(now_s)
        return "degraded" if looks_down else "healthy", 0.0


def _smaller(one: int | None, other: int | None) -> int | None:
    if one is None or other is None:
        return other if one is None else one
    return min(one, other)
