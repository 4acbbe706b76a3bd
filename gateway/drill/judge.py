"""Whether an app got what it should have, and if not, whether that is the configuration's doing. Pure."""

from collections.abc import Mapping
from typing import Final, Literal

from msgspec import Struct

from gateway.drill.client import Seen
from gateway.drill.hostile import Asked
from gateway.drill.scenarios import OUTAGE_S, Scenario
from gateway.drill.speech import TEXT
from providers.base import Endpoint

Result = Literal["ok", "degraded", "not possible here"]

ADD_FALLBACK: Final = "add another endpoint that serves the same model, or name a `fallback:` in the route"
POLICY_CODE: Final = "content_policy_violation"
_SLACK_S: Final = 0.05
_ORDER: Final[tuple[Result, ...]] = ("ok", "not possible here", "degraded")


class Played(Struct, frozen=True, kw_only=True):
    """One scenario as it went, in one of its variations."""

    scenario: Scenario
    seen: tuple[Seen, ...]
    """One for each request of the app's."""
    asked: tuple[Asked, ...]
    """All that reached a provider, in order."""
    candidates: tuple[Endpoint, ...]
    """Whom the router would have asked at first, in order."""
    rescue: bool = True
    """Whether the Route lets another Endpoint go on with an answer that was cut."""
    unsayable: str | None = None
    """An Endpoint that was to fail in a way in which no provider of its kind fails."""
    silent_about_tokens: frozenset[str] = frozenset()
    """Endpoints whose providers count no tokens."""
    recovered_s: float | None = None
    """After an outage: how long until the first provider answered again."""

    @property
    def primary(self) -> str:
        """Who was asked first."""
        return self.asked[0].endpoint if self.asked else "nobody"

    @property
    def tries(self) -> dict[str, int]:
        """How often each was asked."""
        counts: dict[str, int] = {}
        for asked in self.asked:
            counts[asked.endpoint] = counts.get(asked.endpoint, 0) + 1
        return counts


class Verdict(Struct, frozen=True):
    """What came of it, in words."""

    result: Result
    reason: str
    advice: str = ""


def judge(played: Played, models: Mapping[str, str]) -> Verdict:
    """The verdict on one scenario.

    Args:
        played: How it went.
        models: By Endpoint id, the public Model that it serves.
    """
    if played.unsayable is not None:
        return Verdict("not possible here", f"{played.unsayable} never fails that way")
    fault = _fault(played, models)
    if fault is None:
        return Verdict("ok", *_how(played))
    late = played.scenario.expect == "answer" and _is_slow(played)
    advice = "see the route's `timeouts`, and what the app got with -v" if late else "see what the app got with -v"
    return _excuse(played, fault) or Verdict("degraded", fault, advice)


def _fault(played: Played, models: Mapping[str, str]) -> str | None:
    """What an app would complain of; None where all is well."""
    scenario = played.scenario
    for number, seen in enumerate(played.seen, 1):
        if (fault := _fault_in(seen, played)) is not None:
            return fault if len(played.seen) == 1 else f"request {number} of {len(played.seen)}: {fault}"
    tries = sum(
        asked.endpoint == played.primary and (scenario.recovered_s is None or asked.at_s < OUTAGE_S)
        for asked in played.asked
    )
    if tries > scenario.tries_max:
        return f"{played.primary} was asked {tries} times, more than {scenario.tries_max}"
    if scenario.recovered_s is not None and (played.recovered_s is None or played.recovered_s > scenario.recovered_s):
        return f"{played.primary} was well again, and not asked for over {scenario.recovered_s:g} s"
    if scenario.usage:
        return _misreported(played, models)
    return None


def _fault_in(seen: Seen, played: Played) -> str | None:
    scenario = played.scenario
    fault = None
    if scenario.expect == "policy":
        if seen.error != POLICY_CODE:
            fault = f"the app got {seen.error or 'an answer'} instead of {POLICY_CODE}"
        elif len(played.asked) > 1:
            fault = "a refusal for its content was shopped around"
    elif scenario.expect == "failure":
        if seen.error is None and seen.text != TEXT:
            fault = "everything failed, and the app was not told"
    else:
        fault = _not_the_answer(seen)
    if fault is None and seen.seconds > scenario.within_s + _SLACK_S:
        return f"it took {seen.seconds:.1f} s, over {scenario.within_s:g} s"
    return fault


def _not_the_answer(seen: Seen) -> str | None:
    if seen.error is not None:
        began = f" after {len(seen.text)} of {len(TEXT)} characters" if seen.text else ""
        return f"the app got {seen.error}{began}: {seen.message}"
    if seen.text != TEXT:
        place = next(
            (place for place, (got, meant) in enumerate(zip(seen.text, TEXT, strict=False)) if got != meant),
            min(len(seen.text), len(TEXT)),
        )
        return f"the text is wrong from character {place} on ({len(seen.text)} instead of {len(TEXT)})"
    if not seen.complete:
        return "the answer came without its end"
    return None


def _misreported(played: Played, models: Mapping[str, str]) -> str | None:
    seen = played.seen[-1]
    answered = next((asked for asked in reversed(played.asked) if asked.done), None)
    if answered is None:
        return None
    model = models.get(answered.endpoint)
    if seen.model != model:
        return f"the app was told that {seen.model} answered, and it was {model}"
    counted = (answered.input_tokens, answered.output_tokens)
    whole = not answered.prefill  # else the usage is of both parts, and the first part's was never told
    if whole and answered.endpoint not in played.silent_about_tokens and seen.tokens != counted:
        return f"the app was told of {seen.tokens} tokens, and it was {counted}"
    return None


def _excuse(played: Played, fault: str) -> Verdict | None:
    """Where no gateway could have done better with this configuration: why, and what would help."""
    scenario = played.scenario
    others = played.candidates[1:]
    if scenario.needs_other and not others:
        return Verdict("not possible here", f"only {played.primary} can answer", ADD_FALLBACK)
    if not played.rescue and any(seen.text and seen.text != TEXT for seen in played.seen):
        return Verdict("not possible here", f"the route has `rescue: false` ({fault})", "let the route rescue answers")
    if scenario.larger_context:
        mine = played.candidates[0].context_tokens
        if not any(_is_larger(other, mine) for other in others):
            return Verdict(
                "not possible here",
                f"nothing behind {played.primary} has a larger context than {mine or 'an unknown number of'} tokens",
                "add a fallback with a larger context",
            )
    if scenario.primary[0].then.wait_s > scenario.within_s and _is_slow(played):
        return _patience(played, fault)
    return None


def _is_slow(played: Played) -> bool:
    """Whether the answer was right, and only late."""
    return all(_not_the_answer(seen) is None for seen in played.seen)


def _patience(played: Played, fault: str) -> Verdict | None:
    """Why the first provider was waited for longer than any other would have been."""
    first = played.candidates[0]
    if not played.asked[0].streamed:
        why = "gives whole answers only: to be silent and to be at work look the same"
    elif first.local:
        why = "is local: to read a long prompt may take it that long"
    elif first.capabilities.reasoning:
        why = "may think that long before its first token"
    else:
        return None
    return Verdict("not possible here", f"{first.id} {why} ({fault})", "put an endpoint that begins sooner before it")


def _is_larger(other: Endpoint, mine: int | None) -> bool:
    return mine is not None and other.context_tokens is not None and other.context_tokens > mine


def _how(played: Played) -> tuple[str, str]:
    """How it went well, and what may still be advised."""
    if played.scenario.expect != "answer":
        seen = played.seen[-1]
        return f"the app was told: {seen.error or 'answered all the same'}", ""
    answered = next((asked for asked in reversed(played.asked) if asked.done), None)
    if answered is None:
        return "answered", ""
    if played.recovered_s is not None:
        return f"{played.primary} was asked again {played.recovered_s:.0f} s after it was well", ""
    cut = [asked for asked in played.asked if asked.output_tokens and not asked.done]
    if not cut:
        return f"{answered.endpoint} answered", ""
    if answered.prefill:
        return f"{answered.endpoint} went on from there", ""
    advice = "a real model may not say the same twice: a fallback with `prefill: true` goes on from the cut itself"
    wanted = played.scenario.others.takes_prefill
    return f"{answered.endpoint} was asked again, what it repeated was dropped", advice if wanted else ""


def is_worse(one: Verdict, other: Verdict) -> bool:
    """Whether a verdict is worse than another: what was lost before what could not be had."""
    return _ORDER.index(one.result) > _ORDER.index(other.result)
