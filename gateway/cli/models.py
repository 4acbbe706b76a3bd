"""`mixgate models`: which names a client can ask for, and what stands behind each."""

import os
from pathlib import Path

import click

from gateway.cli.config_file import config_file
from gateway.cli.facts import answering, route_rows
from gateway.cli.output import load_or_exit, print_table
from gateway.config.catalogue import Catalogue
from gateway.config.locations import find_config


@click.command("models")
@config_file("Configuration file; FILE alone does as well.")
@click.option("--names", is_flag=True, help="Only the names that can answer now, one per line.")
def command(config: Path | None, names: bool) -> None:  # noqa: FBT001  # click passes flags so
    """List the Models, their Endpoints, prices and aliases, and which can answer now."""
    path = find_config(config, os.environ, Path.cwd())
    catalogue = load_or_exit(path, os.environ)
    if names:
        for name in answering(catalogue, os.environ):
            click.echo(name)
        return
    columns = ("model", "endpoint", "state", "context", "in", "out", "remark")
    print_table("Models (prices in USD per million tokens)", columns, route_rows(catalogue, os.environ))
    aliases = _alias_rows(catalogue)
    if aliases:
        print_table("Aliases", ("model", "also called"), aliases)


def _alias_rows(catalogue: Catalogue) -> list[tuple[str, str]]:
    return [(route.name, ", ".join(route.aliases)) for route in catalogue.routes.values() if route.aliases]
