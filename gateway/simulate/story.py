"""What happened to one request, told from all sides. For people who look into a violation or a lost request."""

from collections.abc import Iterator

from gateway.simulate.running import Outcome


def tell(outcome: Outcome, number: int) -> Iterator[str]:
    """Lines about one request: what was asked, whom the Plan named, what the gateway booked, what providers saw."""
    seen = outcome.seen[number]
    job, start_s = seen.job, seen.started_s
    error = "" if seen.error is None else f": {seen.error.code}: {seen.error.message}"
    yield f"request {number} at {job.at_s:.3f} s: {job}"
    yield f"  {seen.ending or 'no ending'} after {seen.ended_s - start_s:.3f} s with {len(seen.text)} characters{error}"
    if seen.plan is not None:
        for candidate in seen.plan.candidates:
            cost = candidate.expected_cost_in_pusd
            yield f"  candidate {candidate.endpoint.id}: {candidate.observation.standing}, expected cost {cost}"
        for candidate in seen.plan.resting:
            until_s = candidate.observation.until_s - start_s
            yield f"  resting {candidate.endpoint.id}: {candidate.observation.standing} for {until_s:.1f} s"
        for exclusion in seen.plan.excluded:
            yield f"  excluded {exclusion.endpoint}: {exclusion.code}: {exclusion.reason}"
    for attempt in () if seen.answer is None else seen.answer.attempts:
        yield (
            f"  attempt {attempt.number} {attempt.endpoint.id} at {attempt.started_s - start_s:+.3f} s, {attempt.why}: "
            f"{attempt.outcome} {attempt.code or ''} after {attempt.duration_s:.3f} s"
        )
    for received in outcome.received:
        if received.job == number:
            yield (
                f"  provider {received.endpoint} at {received.at_s - start_s:+.3f} s: {received.fate} "
                f"{received.cause} after {(received.ended_s or received.at_s) - received.at_s:.3f} s, "
                f"{len(received.text)} characters behind {len(received.prefill)} of prefill"
            )
