"""`mixgate serve`: start the gateway and say where it is and who is on."""

import json
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from gateway.cli.config_file import config_file
from gateway.cli.facts import answering, provider_rows
from gateway.cli.output import EXIT_CONFIGURATION, print_problems
from gateway.config.accounts import is_loopback
from gateway.config.catalogue import Catalogue, GatewaySettings
from gateway.config.locations import find_config
from gateway.config.operations import LogSettings
from gateway.config.overrides import LIST_KEYS, PREFIX, SETTING_KEYS, gather
from gateway.errors import ConfigError
from gateway.logs import set_up
from gateway.processes import serve

Command = TypeVar("Command", bound=Callable[..., Any])

_HELP = {
    "host": "Address to listen on.",
    "port": "Port to listen on; 0 lets the system choose.",
    "client_keys": "Keys that clients must show, as env:NAME or file:/path.",
    "admin_token": "Token that manages client keys over HTTP, as env:NAME or file:/path.",
    "metrics_token": "Token that reads /metrics and nothing else, as env:NAME or file:/path.",
    "viewer_token": "Token to look at the dashboard, but not at who asked, as env:NAME or file:/path.",
    "trusted_proxies": "Reverse proxies whose forwarding headers are believed.",
    "hosts": "More names that clients may reach the gateway by.",
    "drain_s": "Seconds that running answers get after SIGTERM.",
    "workers": "Processes that answer; about as many as there are CPU cores.",
    "in_flight_max": "Requests answered at the same time; one more is refused.",
    "in_flight_per_key_max": "Of these, by one client key.",
    "tls_cert": "Certificate chain (PEM); serves https.",
    "tls_key": "Private key (PEM).",
    "log_format": "Lines for people (text) or one JSON object per line (json).",
    "log_level": "The least that is said: debug, info, warning or error.",
}


def _settings(function: Command) -> Command:
    """An option for every setting of the `gateway` section. Values are judged where the file's are."""
    for key in reversed(SETTING_KEYS):
        words = _HELP[key] + (" Several: separated by commas." if key in LIST_KEYS else "")
        function = click.option("--" + key.replace("_", "-"), key, help=f"{words} [{PREFIX}{key.upper()}]")(function)
    return function


@click.command("serve")
@config_file("Configuration file; FILE alone does as well. [MIXGATE_CONFIG]")
@_settings
def command(config: Path | None, **flags: str | None) -> None:
    """Start the gateway.

    Settings come from a flag, else from the environment variable in brackets, else from the file's `gateway` section.
    The file is watched: a sound change takes effect at once, a broken one is reported and changes nothing.
    """
    path = find_config(config, os.environ, Path.cwd())
    overrides = {key: value for key, value in flags.items() if value is not None}
    asked = gather(os.environ, overrides).get("log_format")
    # The file has its say once it is read; what is said before that has the form that was asked for here.
    set_up(LogSettings(format="json" if asked is not None and asked.value == "json" else "text"))
    try:
        code = serve(path, os.environ, overrides, announce)
    except ConfigError as error:
        print_problems(error.problems, "error")
        raise SystemExit(EXIT_CONFIGURATION) from None
    raise SystemExit(code)


def announce(catalogue: Catalogue, host: str, port: int) -> None:
    """Print the base URL, a line to paste, and who is on. Called once the gateway listens."""
    url = base_url(host, port, tls=catalogue.gateway.tls is not None)
    names = answering(catalogue, os.environ)
    click.echo(f"Mixgate reads {catalogue.path}\n")
    for name, _, state, why in provider_rows(catalogue, os.environ):
        mark = click.style(state.ljust(3), fg="green" if state == "on" else "yellow")
        click.echo(f"  {mark}  {name}: {why}")
    if catalogue.warnings:
        count = len(catalogue.warnings)
        click.echo(f"  {count} remark{'s' if count > 1 else ''} on the configuration: see mixgate check")
    click.echo(f"\nbase URL   {click.style(url, bold=True)}")
    click.echo(f"dashboard  {url.removesuffix('v1')}dashboard/\n")
    if names:
        click.echo(curl_line(url, names[0], catalogue.gateway) + "\n")
    else:
        click.echo("Nothing can answer yet: set one of the variables above.\n")


def base_url(host: str, port: int, *, tls: bool) -> str:
    """Where an OpenAI client is to be pointed. A wildcard address is reached by loopback from here."""
    reached = "127.0.0.1" if host in {"0.0.0.0", "::"} else host  # noqa: S104  # compared, not bound
    bracketed = f"[{reached}]" if ":" in reached else reached
    return f"{'https' if tls else 'http'}://{bracketed}:{port}/v1"


def curl_line(url: str, model: str, gateway: GatewaySettings) -> str:
    """A request that works when pasted into a shell on this machine."""
    body = shlex.quote(json.dumps({"model": model, "messages": [{"role": "user", "content": "Hello!"}]}))
    kind, _, place = gateway.client_keys[0].reference.partition(":") if gateway.client_keys else ("", "", "")
    shown = f"${place}" if kind == "env" else f"$(cat {shlex.quote(place)})"
    authorization = f' -H "Authorization: Bearer {shown}"' if kind else ""
    # A certificate for this machine's own address is seldom one that curl trusts.
    insecure = " -k" if gateway.tls and is_loopback(gateway.host) else ""
    return f"curl{insecure} {url}/chat/completions -H 'Content-Type: application/json'{authorization} -d {body}"
