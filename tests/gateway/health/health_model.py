"""How an Endpoint's health should behave, written down slowly and plainly: it remembers everything and counts anew."""

from gateway.health.kinds import COUNTED


class Model:
    """Times are floats of the monotonic clock; every open time is without jitter."""

    def __init__(self):
        self.answers = []
        self.run = []
        self.state, self.until_s, self.opened, self.closed_s = "closed", 0.0, 0, None
        self.parked_until_s = self.disabled_until_s = None
        self.parked_until_s, self.waits = 0.0, 0
        self.good_probes = 0
        self.probes = self.panics = self.in_flight = 0
        self.history = ["closed"]

    def become(self, state):
        self.state = state
        if self.history[-1] != state:
            self.history.append(state)

    def window(self, now_s, width_s, buckets):
        newest = now_s // width_s
        return [good for at_s, good in self.answers if newest - at_s // width_s < buckets]

    def is_bad(self, now_s, width_s, buckets, least, share):
        seen = self.window(now_s, width_s, buckets)
        return len(seen) >= least and seen.count(False) >= share * len(seen)

    def enter(self, now_s, panic, cap):
        if now_s < self.parked_until_s or (cap is not None and self.in_flight >= cap):
            return "REFUSED"
        if self.disabled_until_s is not None:
            if now_s < self.disabled_until_s or self.probes:
                return "REFUSED"
            if self.state == "open":
                self.become("half_open")
            return self.grant("PROBE")
        if self.state == "closed":
            return self.grant("NORMAL")
        if not self.probes and (self.state == "half_open" or now_s >= self.until_s):
            self.become("half_open")
            return self.grant("PROBE")
        return self.grant("PANIC") if panic and self.panics < 2 else "REFUSED"

    def grant(self, permit):
        self.in_flight += 1
        self.probes += permit == "PROBE"
        self.panics += permit == "PANIC"
        return permit

    def open(self, now_s):
        if self.state == "closed" and (self.closed_s is None or now_s - self.closed_s >= 600):
            self.opened = 0
        self.until_s = now_s + (5, 10, 20)[min(self.opened, 2)]
        self.opened += 1
        self.run, self.good_probes = [], 0
        self.become("open")

    def leave(self, permit, kind, retry_after_s, now_s):
        self.in_flight -= 1
        self.probes -= permit == "PROBE"
        self.panics -= permit == "PANIC"
        if kind is None:
            self.good(permit, now_s)
        elif kind in COUNTED:
            self.answers.append((now_s, False))
            self.bad(permit, kind, now_s)
        elif kind == "rate_limit":
            self.rate_limited(permit, retry_after_s, now_s)
        elif kind == "auth":
            self.disabled_until_s = now_s + 300

    def good(self, permit, now_s):
        self.answers.append((now_s, True))
        self.waits = 0
        if permit == "NORMAL":
            self.run = []
        if permit != "PROBE":
            return
        self.disabled_until_s = None
        if self.state == "half_open":
            self.good_probes += 1
            if self.good_probes == 2:
                self.answers, self.run, self.closed_s = [], [], now_s
                self.become("closed")

    def bad(self, permit, kind, now_s):
        if permit == "PROBE":
            self.fail_probe(now_s)
        elif permit == "NORMAL" and self.state == "closed":
            self.run.append(kind)
            if len(self.run) >= 3 or self.run[-2:] == ["connect"] * 2 or self.is_bad(now_s, 5, 12, 10, 0.5):
                self.open(now_s)

    def fail_probe(self, now_s):
        if self.disabled_until_s is not None:
            self.disabled_until_s = now_s + 30
        if self.state == "half_open":
            self.open(now_s)

    def rate_limited(self, permit, retry_after_s, now_s):
        if retry_after_s is not None and retry_after_s > 0:
            self.parked_until_s = max(self.parked_until_s, now_s + min(retry_after_s, 300))
        elif retry_after_s is not None and not self.waits:
            self.waits = 1
        elif now_s >= self.parked_until_s:
            self.parked_until_s = now_s + min(2**self.waits, 32)
            self.waits += 1
        if permit == "PROBE":
            self.fail_probe(now_s)

    def standing(self, now_s):
        if self.disabled_until_s is not None and (self.probes or now_s < self.disabled_until_s):
            return "disabled"
        if now_s < self.parked_until_s and not (self.state == "open" and self.parked_until_s < self.until_s):
            return "parked"
        if self.disabled_until_s is not None:
            return "probing"
        if self.state != "closed":
            due = self.state == "half_open" or now_s >= self.until_s
            return "probing" if due and not self.probes else "open"
        return "degraded" if self.is_bad(now_s, 5, 12, 10, 0.05) else "healthy"
