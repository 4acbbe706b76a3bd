"""`mixgate check`: judge a configuration, and say who would be on."""

import os
from pathlib import Path

import click

from gateway.cli.aws import confirm_credentials
from gateway.cli.config_file import config_file
from gateway.cli.facts import provider_rows, route_rows
from gateway.cli.output import load_or_exit, print_problems, print_table
from gateway.config.locations import find_config


@click.command("check")
@config_file("The same as FILE.")
def command(config: Path | None) -> None:
    """Validate a configuration file and say per provider whether it is on, and why not.

    FILE defaults to the one that `mixgate serve` would read. Exits 2 with file:line and a remedy for everything that
    is wrong, else 0: a provider without a key is off, which is no error.
    """
    path = find_config(config, os.environ, Path.cwd())
    catalogue = confirm_credentials(load_or_exit(path, os.environ))
    print_table("Providers", ("provider", "dialect", "state", "why"), provider_rows(catalogue, os.environ))
    columns = ("model", "endpoint", "state", "context", "in", "out", "remark")
    print_table("Models (prices in USD per million tokens)", columns, route_rows(catalogue, os.environ))
    print_problems(catalogue.warnings, "warning")
    click.echo(f"{path} is sound")
