"""Examples of every command, as its help shows them. The tests parse each of them."""

from collections.abc import Mapping
from typing import Final

import click

EXAMPLES: Final[Mapping[str, tuple[str, ...]]] = {
    "serve": (
        "mixgate serve",
        "mixgate serve --config providers.yaml --port 8081 --workers 4",
        "mixgate serve --log-format json --drain-s 30",
    ),
    "check": ("mixgate check", "mixgate check providers.yaml"),
    "models": ("mixgate models", "mixgate models --names"),
    "drill": ("mixgate drill", "mixgate drill mixtral-8x22b --all --scenario S08 -v"),
    "simulate": (
        "mixgate simulate --seeds 3 --policy balanced --policy price",
        "mixgate simulate --config providers.yaml --seeds 10",
        "mixgate simulate --from-ledger --since 7d",
        "mixgate simulate --seed 7 --policy balanced",
    ),
    "keys": ("mixgate keys create app --month 200", "mixgate keys list"),
    "keys create": (
        "mixgate keys create app --month 200 --requests-per-min 60 --expires 90d > app.key",
        "mixgate keys create team --ever 1000 --models mixtral-8x7b,mixtral-8x22b",
        "mixgate keys create app --team team --day 2.50",
        "mixgate keys create app --url https://gateway.example --token env:ADMIN_TOKEN",
    ),
    "keys change": ("mixgate keys change app --day 5 --concurrency 8", "mixgate keys change app --month none"),
    "keys disable": ("mixgate keys disable app",),
    "keys enable": ("mixgate keys enable app",),
    "keys rotate": ("mixgate keys rotate app --overlap 12h",),
    "keys delete": ("mixgate keys delete app --yes",),
    "keys list": ("mixgate keys list --json",),
    "keys show": ("mixgate keys show app",),
    "explain": (
        "mixgate explain last",
        "mixgate explain gen-01M80N33M1W9MH97QD81PN993C --replay",
        "mixgate explain -f body.json",
        "mixgate explain -f body.json --offline",
    ),
    "dashboard": ("mixgate dashboard", "mixgate dashboard --token"),
    "spend": (
        "mixgate spend",
        "mixgate spend --by key --since 30d",
        "mixgate spend --by day --since 2027-01-01 --until 2027-02-01 --csv",
        "mixgate spend --by model --step week --since 12w",
    ),
    "top": ("mixgate top", "mixgate top --by app --window 1h --once"),
    "uptime": ("mixgate uptime", "mixgate uptime --endpoint mistral/mistral-small-latest --window 7d"),
    "requests": (
        "mixgate requests --failed --since 24h",
        "mixgate requests --key gk_5f2a --min-cost 0.05 --json",
        "mixgate requests --follow",
    ),
    "what-if": (
        "mixgate what-if --since 30d",
        "mixgate what-if --on mixtral-8x7b --route support",
        "mixgate what-if --policy price --policy latency",
    ),
    "reconcile": (
        "mixgate reconcile activity.json --provider openrouter",
        "mixgate reconcile --ask --provider openrouter --management-key env:OPENROUTER_MANAGEMENT_KEY",
        "mixgate reconcile invoice.csv --provider mistral --column cost='Net amount' --tolerance 0.01",
    ),
    "alerts": ("mixgate alerts list", "mixgate alerts test"),
    "alerts list": ("mixgate alerts list --config providers.yaml",),
    "alerts test": ("mixgate alerts test --retry",),
    "ledger": ("mixgate ledger status", "mixgate ledger backup /backups/mixgate.db"),
    "ledger status": ("mixgate ledger status --json",),
    "ledger backup": ("mixgate ledger backup /backups/mixgate-2027-01-31.db",),
    "ledger check": ("mixgate ledger check", "mixgate ledger check --fleet"),
    "ledger migrate": ("mixgate ledger migrate --to 7", "mixgate ledger migrate --fleet"),
    "ledger recover": ("mixgate ledger recover", "mixgate ledger recover /backups/mixgate-2027-01-31.db"),
    "ledger export": (
        "mixgate ledger export --since 7d > rows.csv",
        "mixgate ledger export --format json --outcome failed --since 24h",
    ),
    "doctor": ("mixgate doctor", "mixgate doctor --config providers.yaml"),
    "refresh": ("mixgate refresh --dry-run", "mixgate refresh"),
    "import": (
        "mixgate import config.yaml --out providers.yaml",
        "mixgate import model_prices_and_context_window.json --only '*mixtral*'",
        "mixgate import preset.json --from openrouter --name chat",
    ),
    "pull": ("mixgate pull mradermacher/Mixtral-8x7B-Instruct-v0.1-GGUF:Q4_K_M",),
}
"""By the command's name, for one below another with both."""


def show_examples(name: str, command: click.Command) -> None:
    """Have a command's help, and that of all below it, end with its examples."""
    lines = EXAMPLES.get(name, ())
    if lines:
        command.epilog = "\n".join(("\b", "Examples:", *(f"  {line}" for line in lines)))
    if isinstance(command, click.Group):
        for below, found in command.commands.items():
            show_examples(f"{name} {below}", found)
