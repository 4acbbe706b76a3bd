"""The `mixgate` command. Each subcommand is a module of its own, loaded when it is asked for."""

import errno
import sys
from importlib import import_module
from typing import Any, Final

EXIT_INTERRUPTED: Final = 130
"""As a shell has it for a program that Ctrl-C ended: 128 and the signal's number."""

try:
    import click

    from gateway.cli.examples import show_examples
except KeyboardInterrupt:  # nobody else is there yet to say that this is no fault
    sys.exit(EXIT_INTERRUPTED)

COMMANDS = {
    "serve": "Start the gateway.",
    "check": "Judge a configuration file, and say who is on.",
    "models": "List the models, what they cost, and which can answer.",
    "drill": "Play every failure of providers against a configuration.",
    "simulate": "Compare policies over simulated traffic, prices and failures.",
    "keys": "Issue client keys, and say what each may use and spend.",
    "explain": "Show why a request went where it went, or where one would go.",
    "dashboard": "Say where the dashboard is, and by which token to sign in.",
    "spend": "Show what was spent, by model, provider, key or application.",
    "top": "Show who spends at the moment, and which endpoints answer.",
    "uptime": "Show how well and how fast every endpoint answers.",
    "requests": "Look for requests in the ledger.",
    "what-if": "Work out what a time would have cost elsewhere, or otherwise routed.",
    "reconcile": "Hold the ledger against what a provider says that it charged.",
    "alerts": "See who is told of budgets, outages and unusual spending, and try it.",
    "ledger": "Look after the ledger: its state, copies, checks, versions, rows.",
    "doctor": "Look for what is wrong with this installation.",
    "refresh": "Ask OpenRouter what has changed.",
    "import": "Convert another gateway's configuration, or a price list.",
    "pull": "Download a model for the local backend.",
}
"""Every subcommand, with its line in the help."""


_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


class _OnDemand(click.Group):
    """Loads only the subcommand that was named: `serve` does not wait for what `doctor` imports."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  # click's signature
        return [*COMMANDS]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002  # click's
        if cmd_name not in COMMANDS:
            return None
        command = import_module(f"gateway.cli.{cmd_name.replace('-', '_')}").command
        if not isinstance(command, click.Command):
            return None
        show_examples(cmd_name, command)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run it. A disk that does not take what a command prints is no fault of ours: words, and no trace.

        Nor is Ctrl-C before a command is so far that it has its own way of ending: no words at all.
        """
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(EXIT_INTERRUPTED) from None
        except OSError as error:
            if error.errno not in _NO_ROOM:
                raise
            place = f"{error.filename} " if error.filename else "the output "
            words = f"{place}could not be written: {error.strerror}. Free some space, or write it elsewhere."
            raise click.ClickException(words) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002  # click's
        with formatter.section("Commands"):
            formatter.write_dl([*COMMANDS.items()])


@click.group(cls=_OnDemand, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="mixgate", message="mixgate %(version)s")
def main() -> None:
    """Mixgate: one endpoint that routes to many providers, with a Mixtral in the boot.

    \b
    Configuration file: --config, MIXGATE_CONFIG, ./providers.yaml, then the one that was installed with Mixgate.
    MIXGATE_HOME is the folder of pulled models and all else that is kept.

    \b
    Exit codes: 0 all is well, 1 it failed, 2 the configuration or the command line is wrong, 130 interrupted (Ctrl-C).
    """  # noqa: D301  # \b is click's mark for a paragraph that keeps its lines
