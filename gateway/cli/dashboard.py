"""`mixgate dashboard`: where it is, and the token by which the user of MIXGATE_HOME signs in from this machine."""

import os
import sys
from pathlib import Path

import click

from gateway.cli.config_file import config_file
from gateway.cli.output import EXIT_CONFIGURATION, load_or_exit, print_problems
from gateway.cli.serve import base_url
from gateway.config.locations import find_config, home_folder
from gateway.errors import ConfigError
from gateway.keys.home_secret import open_home_secrets


@click.command("dashboard")
@config_file("Configuration file; FILE alone does as well. [MIXGATE_CONFIG]")
@click.option("--token", is_flag=True, help="Print the token for signing in from this machine, and nothing else.")
def command(config: Path | None, token: bool) -> None:  # noqa: FBT001  # click passes flags so
    """Say where the dashboard of a running gateway is.

    While there is neither a client key nor an admin token, this machine needs no token. Otherwise --token prints one
    that is good on this machine alone; whoever may read MIXGATE_HOME can work it out. For others there are
    gateway.admin_token and gateway.viewer_token.
    """
    if token:
        try:
            text = open_home_secrets(home_folder(os.environ)).admin_token.reveal()
        except ConfigError as error:
            print_problems(error.problems, "error")
            raise SystemExit(EXIT_CONFIGURATION) from None
        click.echo(text)
        if sys.stdout.isatty():
            click.echo("Paste it into the page; it is good on this machine alone.", err=True)
        return
    gateway = load_or_exit(find_config(config, os.environ, Path.cwd()), os.environ).gateway
    url = base_url(gateway.host, gateway.port, tls=gateway.tls is not None)
    click.echo(f"{url.removesuffix('v1')}dashboard/")
