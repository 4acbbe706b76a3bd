"""A drill: every scenario for every Route, each over an engine of its own, in virtual time and without a network."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from msgspec import Struct

from gateway.config.catalogue import Catalogue, Route
from gateway.drill.client import Seen, read_answer
from gateway.drill.driving import Driver, Replier
from gateway.drill.hostile import Asked, HostileTransport, Stage
from gateway.drill.judge import Played, Verdict, is_worse, judge
from gateway.drill.scenarios import OUTAGE_S, Scenario, Script
from gateway.drill.speech import QUESTION
from gateway.upstream import Upstream
from gateway.virtual_time import run
from providers import DIALECTS
from providers.base import Endpoint
from providers.messages import ChatRequest, Message, StreamOptions, Usage
from providers.pretending import PRETENDERS
from providers.pricing import cost_in_nusd

RECOVERY_EVERY_S: Final = 2.0
"""How often an app asks after an outage, until the first provider is asked again."""
_PRICED_AT: Final = datetime(2026, 1, 1, tzinfo=UTC)


class Outcome(Struct, frozen=True, kw_only=True):
    """What one scenario comes to on one Route."""

    route: str
    scenario: Scenario
    verdict: Verdict
    seconds: float
    """The longest that the app waited for an answer."""
    tries: Mapping[str, int]
    """By Endpoint, how often it was asked; of several variations, in the one that was judged."""
    wasted_nusd: int | None
    """What providers bill for answers that did not come to their end; None: a price is unknown."""
    variations: int
    status: int
    """What the app got in the variation that was judged: of several requests, the last one's."""
    body: bytes


class Setting(Struct, frozen=True):
    """What a drill plays on."""

    catalogue: Catalogue
    off: Mapping[str, str]
    """Endpoints that are left out, by id, and why."""
    replier: Replier


def usable(route: Route, setting: Setting) -> bool:
    """Whether anything on this Route can answer."""
    catalogue = setting.catalogue
    names = [*route.endpoints]
    for fallback in route.fallback:
        other = catalogue.find_route(fallback)
        names += other.endpoints if other is not None else ()
    return any(name not in setting.off and catalogue.endpoints[name].state != "retired" for name in names)


def drill(route: Route, scenarios: Sequence[Scenario], setting: Setting) -> list[Outcome]:
    """Play every scenario on one Route."""
    return [run(_outcome(route, scenario, setting)) for scenario in scenarios]


async def _outcome(route: Route, scenario: Scenario, setting: Setting) -> Outcome:
    """The worst of its variations, one after the other."""
    models = {endpoint.id: endpoint.model for endpoint in setting.catalogue.endpoints.values()}
    count = len(scenario.primary)
    seconds = 0.0
    kept: tuple[Played, Verdict] | None = None
    for number, script in enumerate(scenario.primary, 1):
        played = await _play(route, scenario, script, setting)
        seconds = max(seconds, *(seen.seconds for seen in played.seen))
        verdict = judge(played, models)
        if kept is None or is_worse(verdict, kept[1]):
            if count > 1 and verdict.result != "ok":
                said = f"variation {number} of {count}: {verdict.reason}"
                verdict = msgspec.structs.replace(verdict, reason=said)
            kept = played, verdict
    assert kept is not None  # noqa: S101 (every scenario has a script)
    judged, verdict = kept
    return Outcome(
        route=route.name,
        scenario=scenario,
        verdict=verdict,
        seconds=seconds,
        tries=judged.tries,
        wasted_nusd=_wasted(judged.asked, setting.catalogue),
        variations=count,
        status=judged.seen[-1].status,
        body=judged.seen[-1].body,
    )


async def _play(route: Route, scenario: Scenario, script: Script, setting: Setting) -> Played:
    stage = Stage(script, scenario.others)
    endpoints = setting.catalogue.endpoints
    upstreams = {name: _pretended(stage, endpoint, setting.catalogue) for name, endpoint in endpoints.items()}
    driver = Driver(setting.catalogue, upstreams, setting.off)
    seen: list[Seen] = []
    candidates: tuple[Endpoint, ...] = ()
    for number in range(scenario.requests):
        await asyncio.sleep(max(0.0, number * scenario.every_s - stage.elapsed_s()))
        one, planned = await _ask(driver, route, setting.replier)
        seen.append(one)
        candidates = candidates or planned
    recovered_s = await _recovered(stage, driver, route, setting) if scenario.recovered_s is not None else None
    silent = {name for name, upstream in upstreams.items() if not PRETENDERS[upstream.dialect.name].counts}
    return Played(
        scenario=scenario,
        seen=tuple(seen),
        asked=tuple(stage.asked),
        candidates=candidates,
        rescue=route.rescue,
        unsayable=stage.unsayable,
        silent_about_tokens=frozenset(silent),
        recovered_s=recovered_s,
    )


def _pretended(stage: Stage, endpoint: Endpoint, catalogue: Catalogue) -> Upstream:
    """How to reach the pretended provider: its real dialect, no key, no signer, no network."""
    dialect = DIALECTS[catalogue.providers[endpoint.provider].dialect]
    return Upstream(dialect, HostileTransport(stage, endpoint, PRETENDERS[dialect.name]), {})


async def _ask(driver: Driver, route: Route, replier: Replier) -> tuple[Seen, tuple[Endpoint, ...]]:
    """One request of the app's, from its start to the last byte of its answer."""
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    request = ChatRequest(
        messages=(Message(role="user", content=QUESTION),),
        model=route.name,
        stream=True,
        stream_options=StreamOptions(include_usage=True),
    )
    status = 0
    parts: list[bytes] = []

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal status
        status = message.get("status", status)
        parts.append(message.get("body", b""))

    answer = await replier(driver.answer(request), send)
    planned = () if answer is None else tuple(candidate.endpoint for candidate in answer.plan.candidates)
    return read_answer(status, b"".join(parts), loop.time() - began_s), planned


async def _recovered(stage: Stage, driver: Driver, route: Route, setting: Setting) -> float | None:
    """Seconds from the end of the outage until the first provider answers; None where it is left alone too long."""
    primary = stage.primary
    while stage.elapsed_s() < 2 * OUTAGE_S:
        answered = [asked.at_s for asked in stage.asked if asked.endpoint == primary and asked.done]
        if answered:
            return max(0.0, answered[0] - OUTAGE_S)
        await asyncio.sleep(RECOVERY_EVERY_S)
        await _ask(driver, route, setting.replier)
    return None


def _wasted(asked: Sequence[Asked], catalogue: Catalogue) -> int | None:
    total = 0
    for one in asked:
        if one.done or not one.output_tokens:
            continue
        usage = Usage(input_tokens=one.input_tokens, output_tokens=one.output_tokens)
        cost = cost_in_nusd(catalogue.endpoints[one.endpoint].price, (), usage, _PRICED_AT)
        if cost is None:
            return None
        total += cost
    return total
