"""The fleet's Postgres, for commands that read it."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gateway.cli.output import EXIT_CONFIGURATION, fail, load_or_exit
from gateway.config.locations import find_config
from gateway.config.stores import PostgresSettings
from gateway.state.errors import StoreError

if TYPE_CHECKING:
    from gateway.state.postgres_reader import PostgresLedgerReader

Result = TypeVar("Result")


def fleet_of(config: Path | None) -> PostgresSettings | None:
    """Where the configuration says that the fleet's Postgres is; None: there is no fleet."""
    return load_or_exit(find_config(config, os.environ, Path.cwd()), os.environ).gateway.postgres


def require_fleet(config: Path | None) -> PostgresSettings:
    """The same; without a fleet the command ends."""
    settings = fleet_of(config)
    if settings is None:
        fail("the configuration names no Postgres", "set gateway.postgres.url: env:NAME", EXIT_CONFIGURATION)
    return settings


def read_fleet(config: Path | None, work: Callable[["PostgresLedgerReader"], Result]) -> Result:
    """What a look at the fleet's ledger gives. Ends the command where it cannot be read."""
    # SQLAlchemy takes a second to import, which only a fleet should pay for.
    from gateway.state.postgres_reader import open_fleet  # noqa: PLC0415

    settings = require_fleet(config)
    try:
        with open_fleet(settings.url.reveal()) as reader:
            return work(reader)
    except StoreError as error:
        fail(f"the fleet's Postgres cannot be read: {error}", "look whether it runs, and at gateway.postgres.url")
