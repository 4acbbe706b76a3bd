"""`mixgate drill`: what an app would see if the configured providers failed in every way that they are known to."""

import json
import os
import time
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from gateway.answer import Answer
from gateway.cli.aws import confirm_credentials
from gateway.cli.facts import off_reason
from gateway.cli.output import EXIT_CONFIGURATION, EXIT_FAILED, fail, load_or_exit, print_table
from gateway.config.catalogue import Catalogue, Route
from gateway.config.locations import find_config
from gateway.drill.driving import Send
from gateway.drill.judge import Result
from gateway.drill.run import Outcome, Setting, drill, usable
from gateway.drill.scenarios import find_scenarios
from gateway.server.chat import ChatReply
from gateway.server.client import AsgiClient
from gateway.server.errors import error_answer, error_headers
from gateway.server.scope import FIELDS, Message
from providers.errors import MixgateError

GENERATION_ID = "gen-drill"
CREATED_UNIX_S = 1_767_225_600
ALL_SEEN = 4000
"""Bytes of an answer that -v shows; the middle of longer ones is left out."""
RESULTS: tuple[Result, ...] = ("ok", "degraded", "not possible here")


@click.command("drill")
@click.argument("route", required=False)
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file.")
@click.option("--scenario", "wanted", multiple=True, metavar="ID", help="Only this scenario, as in S08; repeatable.")
@click.option("--all", "everything", is_flag=True, help="Also providers that are off: no key is needed for any.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("-v", "--verbose", is_flag=True, help="Show the bytes that the app would have got.")
def command(
    route: str | None,
    config: Path | None,
    wanted: tuple[str, ...],
    everything: bool,  # noqa: FBT001  # click passes flags so
    as_json: bool,  # noqa: FBT001  # click passes flags so
    verbose: bool,  # noqa: FBT001  # click passes flags so
) -> None:
    """Play every failure that providers are known for, and say what an app would have seen.

    Nothing leaves this machine and no key is used: each provider of the configuration is replaced by a pretended one
    that speaks its language and fails by script, in virtual time. Exits 1 where an answer was lost that could have
    been saved.
    """
    env = os.environ
    path = find_config(config, env, Path.cwd())
    catalogue = load_or_exit(path, env)
    if not everything:
        catalogue = confirm_credentials(catalogue)
    try:
        scenarios = find_scenarios(wanted)
    except LookupError as error:
        fail(f"there is no scenario {error}", "leave --scenario out to see them all", EXIT_CONFIGURATION)
    setting = Setting(catalogue, _off(catalogue, env, everything=everything), reply)
    routes = _routes(catalogue, route)
    began_s = time.monotonic()
    outcomes = {one.name: drill(one, scenarios, setting) for one in routes if usable(one, setting)}
    if as_json:
        click.echo(json.dumps([_as_json(outcome) for each in outcomes.values() for outcome in each], indent=2))
    else:
        _print(routes, outcomes, verbose=verbose)
        click.echo(f"drilled {path} in {time.monotonic() - began_s:.1f} s")
    if not outcomes:
        fail("nothing that was to be drilled is on", "set a key (`mixgate check` says which), or drill with --all")
    if any(outcome.verdict.result == "degraded" for each in outcomes.values() for outcome in each):
        raise SystemExit(EXIT_FAILED)


async def reply(answering: Awaitable[Answer], send: Send) -> Answer | None:
    """Write an answer as the server does, errors too."""
    try:
        answer = await answering
    except MixgateError as error:
        await send({"type": "http.response.start", "status": error.status, "headers": error_headers(error)})
        await send({"type": "http.response.body", "body": error_answer(error)})
        return None
    client = AsgiClient({"path": "", FIELDS: {}}, _nothing, send)
    writer = ChatReply(answer, client, generation_id=GENERATION_ID, created_unix_s=CREATED_UNIX_S, openrouter=False)
    try:
        await writer.stream()
    except MixgateError as error:
        await writer.fail(error)
    finally:
        answer.close()
    return answer


async def _nothing() -> Message:
    """A request without a body."""
    return {"type": "http.request"}


def _routes(catalogue: Catalogue, name: str | None) -> list[Route]:
    if name is None:
        return [*catalogue.routes.values()]
    found = catalogue.find_route(name)
    if found is None:
        near = ", ".join(catalogue.near_names(name))
        fail(
            f"no route is called {name!r}",
            f"near names: {near}" if near else "see `mixgate models`",
            EXIT_CONFIGURATION,
        )
    return [found]


def _off(catalogue: Catalogue, env: Mapping[str, str], *, everything: bool) -> dict[str, str]:
    if everything:
        return {}
    reasons = {name: off_reason(catalogue, endpoint, env) for name, endpoint in catalogue.endpoints.items()}
    return {name: reason for name, reason in reasons.items() if reason}


def _print(routes: Sequence[Route], outcomes: Mapping[str, Sequence[Outcome]], *, verbose: bool) -> None:
    columns = ("", "scenario", "result", "seconds", "asked", "what the app saw")
    for route in routes:
        if route.name not in outcomes:
            click.echo(f"{route.name}: nothing is on; drill it all the same with --all\n")
            continue
        found = outcomes[route.name]
        print_table(route.name, columns, [_row(outcome) for outcome in found])
        counts = Counter(outcome.verdict.result for outcome in found)
        click.echo("  " + ", ".join(f"{counts[result]} {result}" for result in RESULTS if counts[result]))
        wasted_nusd = sum(outcome.wasted_nusd or 0 for outcome in found)
        if wasted_nusd:
            click.echo(f"  USD {wasted_nusd / 1e9:.6f} would have been billed for answers that broke off")
        for advice in dict.fromkeys(outcome.verdict.advice for outcome in found if outcome.verdict.advice):
            ids = [outcome.scenario.id for outcome in found if outcome.verdict.advice == advice]
            click.echo(f"  {', '.join(ids)}: {advice}")
        click.echo()
        if verbose:
            _print_bytes(found)


def _row(outcome: Outcome) -> tuple[str, ...]:
    providers: Counter[str] = Counter()
    for name, count in outcome.tries.items():
        providers[name.partition("/")[0]] += count
    asked = ", ".join(f"{count}x {name}" for name, count in providers.items())
    verdict = outcome.verdict
    return outcome.scenario.id, outcome.scenario.title, verdict.result, f"{outcome.seconds:.1f}", asked, verdict.reason


def _print_bytes(outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
        body = outcome.body
        if len(body) > ALL_SEEN:
            half = ALL_SEEN // 2
            body = body[:half] + b"\n... %d bytes ...\n" % (len(body) - ALL_SEEN) + body[-half:]
        click.echo(f"--- {outcome.scenario.id} {outcome.scenario.title}: HTTP {outcome.status}")
        click.echo(body.decode(errors="replace"))


def _as_json(outcome: Outcome) -> dict[str, Any]:
    return {
        "route": outcome.route,
        "scenario": outcome.scenario.id,
        "title": outcome.scenario.title,
        "result": outcome.verdict.result,
        "reason": outcome.verdict.reason,
        "advice": outcome.verdict.advice,
        "seconds": round(outcome.seconds, 3),
        "asked": dict(outcome.tries),
        "variations": outcome.variations,
        "wasted_usd": None if outcome.wasted_nusd is None else f"{outcome.wasted_nusd / 1e9:.9f}",
    }
