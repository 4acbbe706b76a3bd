"""`mixgate alerts`: who is told of budgets, outages and unusual spending, and whether that works."""

import asyncio
import os
import time
from collections.abc import Sequence
from pathlib import Path

import click
import tenacity

from gateway.alerts.alerts import TEST_NOTICE
from gateway.alerts.courier import Courier, PassingError, RefusedError, letter_of
from gateway.cli.output import EXIT_FAILED, fail, load_or_exit, print_table
from gateway.config.alerts import AlertTarget
from gateway.config.locations import find_config
from providers.http_transport import HttpTransport


@click.group("alerts")
def command() -> None:
    """Who is told of budgets, outages and unusual spending: `gateway.alerts` in the configuration."""


@command.command("list")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file; as for `mixgate serve`.")
def list_targets(config: Path | None) -> None:
    """List who is told of what. Of a URL only the host is shown: the rest may be a secret."""
    rows = [
        (one.host, ", ".join(one.events), ", ".join(f"{share} %" for share in one.budget_percent))
        for one in _targets(config)
    ]
    print_table("Alerts", ("HOST", "EVENTS", "BUDGETS AT"), rows)


@command.command("test")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file; as for `mixgate serve`.")
@click.option("--retry", is_flag=True, help="Try as often as the gateway does, instead of once.")
def test(config: Path | None, retry: bool) -> None:  # noqa: FBT001  # click passes flags so
    """Send one alert, of event `test`, to everybody who is told anything. Exits 1 where one of them did not take it."""
    targets = _targets(config)
    results = asyncio.run(_send(targets, retry=retry))
    for target, wrong in zip(targets, results, strict=True):
        click.echo(f"{target.host}: {'told' if wrong is None else wrong}", err=wrong is not None)
    if any(wrong is not None for wrong in results):
        raise SystemExit(EXIT_FAILED)


def _targets(config: Path | None) -> Sequence[AlertTarget]:
    catalogue = load_or_exit(find_config(config, os.environ, Path.cwd()), os.environ)
    if not catalogue.gateway.alerts:
        fail(f"{catalogue.path} names nobody to tell", "add `alerts: [{url: ..., secret: env:NAME}]` under gateway")
    return catalogue.gateway.alerts


async def _send(targets: Sequence[AlertTarget], *, retry: bool) -> list[str | None]:
    transport = HttpTransport()
    try:
        return [await _send_one(target, transport, retry=retry) for target in targets]
    finally:
        await transport.aclose()


async def _send_one(target: AlertTarget, transport: HttpTransport, *, retry: bool) -> str | None:
    courier = Courier(
        target, transport, time.time, tries=None if retry else 1, wait=None if retry else tenacity.wait_none()
    )
    try:
        await courier.deliver(letter_of(TEST_NOTICE, time.time()))
    except (PassingError, RefusedError) as error:
        return str(error)
    return None
