"""Write the pages of docs/reference that follow from the code: `python build_aux/generate_docs.py`.

With `--check` nothing is written; it exits 1 and names the pages that are out of date. With `--numbers` the README's
table of measured numbers is written from the last `make bench` instead.
"""

import argparse
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from docs_errors import error_page
from docs_limits import limit_sections
from docs_markdown import MARK, table
from docs_metrics import metrics_page
from docs_words import KEY_NOTES, VARIABLES
from msgspec import NODEFAULT
from msgspec.structs import fields

from gateway.cli import COMMANDS, main
from gateway.config.dialects import DIALECTS
from gateway.config.json_schema import json_schema
from gateway.config.json_schema import rendered as rendered_schema
from gateway.config.load import load
from gateway.config.locations import PACKAGED_CONFIG
from gateway.config.overrides import PREFIX, SETTING_KEYS
from providers.base import Capabilities
from providers.quirks import Quirks

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
HELP_WIDTH = 100
PICO_PER_USD_MTOK = 10**6
PAGES: dict[str, Callable[[], Iterator[str]]] = {
    "errors.md": error_page,
    "metrics.md": metrics_page,
    "providers.schema.json": lambda: iter((rendered_schema(),)),
}


def page(name: str) -> Callable[[Callable[[], Iterator[str]]], Callable[[], Iterator[str]]]:
    """Register a function that yields the lines of one page."""

    def register(lines: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
        PAGES[name] = lines
        return lines

    return register


# ---- providers.yaml

SECTIONS = (
    ("", "The file", ""),
    ("GatewaySection", "gateway", "`gateway:`"),
    ("TlsSection", "gateway.tls", "`gateway: {tls: {...}}`"),
    ("LogSection", "gateway.log", "`gateway: {log: {...}}`"),
    ("TelemetrySection", "gateway.telemetry", "`gateway: {telemetry: {...}}`"),
    ("PostgresSection", "gateway.postgres", "`gateway: {postgres: {...}}`"),
    ("RedisSection", "gateway.redis", "`gateway: {redis: {...}}`"),
    ("AlertSection", "gateway.alerts", "items of `gateway: {alerts: [...]}`"),
    ("ProviderSection", "providers.NAME", "`providers: {NAME: {...}}`"),
    ("QuirksSection", "providers.NAME.quirks", "`quirks: {...}`"),
    ("ModelSection", "providers.NAME.models.ID", "`models: {ID: {...}}`"),
    ("PriceSection", "price", "`price: {...}` of a model"),
    ("PriceOverrideSection", "price.overrides", "items of `price: {overrides: [...]}`"),
    ("CapabilitiesSection", "capabilities", "`capabilities: {...}` or `capabilities: [...]` of a model"),
    ("ClaimSection", "claims", "items of `claims: [...]` of a model"),
    ("DataPolicySection", "data_policy", "`data_policy: {...}` of a provider"),
    ("RouteSection", "routes.NAME", "`routes: {NAME: {...}}`"),
    ("ScoreSection", "score", "`score: {...}` of a Route"),
    ("OverflowSection", "overflow", "`overflow: {...}` of a Route"),
    ("CacheSection", "cache", "`cache: {...}` of a Route"),
    ("TimeoutsSection", "timeouts", "`timeouts: {...}` of a Route"),
)
ANSWERS = {"providers.NAME.quirks": (Quirks,), "capabilities": (Capabilities,)}
"""Sections whose defaults stand in a struct."""
HEADINGS = {name: heading for name, heading, _ in SECTIONS}


@page("providers-yaml.md")
def providers_yaml() -> Iterator[str]:
    """Every key of providers.yaml, what dialects take for granted, and what the shipped file has."""
    schema = json_schema()
    yield "# providers.yaml, key by key\n"
    yield MARK + "\n"
    yield "The one file that you edit. Editors complete and check it by [its JSON"
    yield "Schema](providers.schema.json); `mixgate check` judges all of it, names file and line of everything"
    yield "that is wrong, and says what to write instead. A key that is not listed here is refused, an empty"
    yield "value counts as not written, and every mapping may be left out unless it says required. Examples:"
    yield "[add a provider](../how-to/add-a-provider.md).\n"
    for name, heading, where in SECTIONS:
        section = schema["$defs"][name] if name else schema
        yield f"## {heading}\n"
        said = section.get("description", "")
        flags = next((choice for choice in section.get("anyOf", ()) if "properties" in choice), section)
        said = said or flags.get("description", "")
        yield f"{where}: {said}\n" if where else f"{said}\n"
        yield from _keys(flags, heading)
    yield from _dialects()
    yield from _shipped()


def _keys(section: Mapping[str, Any], heading: str) -> Iterator[str]:
    required = section.get("required", ())
    safe = {
        field.name: [] if field.default is NODEFAULT else field.default
        for owner in ANSWERS.get(heading, ())
        for field in fields(owner)
    }
    rows = []
    for key, value in section["properties"].items():
        default = "required" if key in required else _default(value) or (f"`{str(safe[key]).lower()}`" if safe else "")
        note = KEY_NOTES.get(f"{heading}.{key}", "")
        said = ". ".join(text.rstrip(".") for text in (value.get("description", ""), note) if text)
        rows.append((f"`{key}`", _kind(value), default, said))
    yield from table(("key", "value", "default", "meaning"), rows)


def _default(value: Mapping[str, Any]) -> str:
    default = value.get("default")
    return "" if default is None or default in ([], {}) else f"`{str(default).lower()}`"


def _kind(value: Mapping[str, Any]) -> str:  # noqa: PLR0911  # one line per kind of value
    """A value's type in words."""
    if "$ref" in value:
        heading = HEADINGS[value["$ref"].rpartition("/")[2]]
        return f"[{heading}](#{re.sub(r'[^a-z0-9_-]', '', heading.lower().replace(' ', '-'))})"
    if "enum" in value:
        return ", ".join(f"`{choice}`" for choice in value["enum"])
    if "anyOf" in value:
        return " or ".join(_kind(choice) for choice in value["anyOf"])
    kind = value.get("type")
    if kind == "array":
        return f"list of {_kind(value['items'])}"
    if kind == "object":
        return f"name to {_kind(value['additionalProperties'])}"
    if kind == "string":
        return "date" if value.get("format") == "date" else "text"
    if kind == "integer":
        return "whole number" + _range(value)
    if isinstance(kind, list):
        return "date, or `YYYY-MM`, or `YYYY`"
    return {"boolean": "`true`, `false`", "number": "number" + _range(value)}.get(str(kind), "anything")


def _range(value: Mapping[str, Any]) -> str:
    low = value.get("minimum", value["exclusiveMinimum"] + 1 if "exclusiveMinimum" in value else None)
    high = value.get("maximum")
    if low is None or high is None:
        return ""
    return f", {low:,} to {high:,}"


def _dialects() -> Iterator[str]:
    yield "## What each dialect takes for granted\n"
    rows = [
        (
            f"`{name}`",
            f"`{facts.base_url}`"
            if facts.base_url
            else "none: the worker on this machine"
            if facts.local
            else "made of `region`"
            if facts.aws
            else "none: the library knows"
            if facts.library
            else "required",
            f"`{facts.api_key}`"
            if facts.api_key
            else "`env:AWS_BEARER_TOKEN_BEDROCK`, or AWS credentials"
            if facts.aws
            else "the library's own variables"
            if facts.library
            else "none",
            ", ".join(f"`{quirk}: {str(answer).lower()}`" for quirk, answer in facts.quirks.items()),
        )
        for name, facts in DIALECTS.items()
    ]
    yield from table(("dialect", "base_url", "api_key", "quirks that differ"), rows)


def _shipped() -> Iterator[str]:
    yield "## What the shipped file has\n"
    yield "Prices are USD per million tokens, in and out; `?` is unknown, which is not zero. Where sources"
    yield "disagree, the other figures stand under `claims` in the file itself.\n"
    catalogue = load(PACKAGED_CONFIG, {})
    rows = []
    for endpoint in catalogue.endpoints.values():
        price = endpoint.price
        cells = (price.input_in_pusd, price.output_in_pusd) if price is not None else (None, None)
        prices = " / ".join("?" if cell is None else f"{cell / PICO_PER_USD_MTOK:g}" for cell in cells)
        rows.append(
            (
                f"`{endpoint.id}`",
                f"`{endpoint.model}`",
                "?" if endpoint.context_tokens is None else str(endpoint.context_tokens),
                prices,
                endpoint.state,
                str(endpoint.details.get("as_of", "")),
            )
        )
    yield from table(("Endpoint", "serves", "context, tokens", "price", "state", "as of"), rows)
    rows = [
        (f"`{route.name}`", ", ".join(f"`{alias}`" for alias in route.aliases), ", ".join(route.fallback))
        for route in catalogue.routes.values()
    ]
    yield from table(("Route", "also called", "fallback"), rows)


# ---- the command line


@page("cli.md")
def cli() -> Iterator[str]:
    """The help of every command, and the variables that the program reads."""
    yield "# The mixgate command\n"
    yield MARK + "\n"
    yield "After `make run` it is `.venv/bin/mixgate`. On a terminal it prints tables and colours, piped plain text.\n"
    settings = {**main.context_settings, "max_content_width": HELP_WIDTH}
    group = click.Context(main, info_name="mixgate", terminal_width=HELP_WIDTH, **settings)
    yield from _help("mixgate", main, group)
    for name in COMMANDS:
        command = main.get_command(group, name)
        if command is not None:
            yield from _helps(f"mixgate {name}", command, name, group)
    yield "## Environment\n"
    yield "Each setting of the [`gateway` section](providers-yaml.md#gateway) is read from a flag of `mixgate"
    yield "serve`, else from its variable, else from the file. Lists are separated by commas.\n"
    variables = [(f"`{PREFIX}{key.upper()}`", f"`--{key.replace('_', '-')}`") for key in SETTING_KEYS]
    yield from table(("variable", "flag"), variables)
    yield "Besides these:\n"
    yield from table(("variable", "meaning"), [(f"`{name}`", text) for name, text in VARIABLES.items()])


def _helps(title: str, command: click.Command, name: str, parent: click.Context) -> Iterator[str]:
    """The help of a command, and of all that stand below it."""
    context = click.Context(command, parent=parent, info_name=name, terminal_width=HELP_WIDTH)
    yield from _help(title, command, context)
    if isinstance(command, click.Group):
        for below in command.list_commands(context):
            found = command.get_command(context, below)
            if found is not None and not found.hidden:
                yield from _helps(f"{title} {below}", found, below, context)


def _help(title: str, command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {title}\n"
    yield "```text"
    yield "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield "```\n"


# ---- limits


@page("limits.md")
def limits() -> Iterator[str]:
    """Every named bound of the code with its unit."""
    yield "# Limits\n"
    yield MARK + "\n"
    yield "Everything has a bound, and every bound is a named constant with its unit last. What passes one is"
    yield "refused with words, or cut off, never queued without end. They are not settings: where one can be"
    yield "set, it says so in [providers.yaml](providers-yaml.md).\n"
    inside: list[tuple[str, str, str]] = []
    for title, intro, rows in limit_sections(ROOT):
        yield f"## {title}\n"
        if intro:
            yield intro + "\n"
        yield from table(("bound", "value", "meaning", "where"), [row for row in rows if row[2]])
        inside += [(name, value, file) for name, value, said, file in rows if not said]
    yield "## Inside\n"
    yield "Bounds that nobody should meet from outside; the code around them says what they are for.\n"
    yield from table(("bound", "value", "where"), inside)


def rendered(name: str) -> str:
    """The text of one page."""
    return "\n".join(PAGES[name]()).rstrip("\n") + "\n"


def write_numbers() -> int:
    """Put the tables of the last benchmark between the README's marks; the exit code."""
    path = ROOT / "README.md"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--markdown"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        click.echo(done.stderr.strip())
        return 1
    text = path.read_text(encoding="utf-8")
    before, rest = text.split("<!-- numbers:", 1)
    mark, rest = rest.split("-->\n", 1)
    after = rest.split("<!-- /numbers -->", 1)[1]
    numbers = f"{before}<!-- numbers:{mark}-->\n{done.stdout.strip()}\n<!-- /numbers -->{after}"
    path.write_text(numbers, encoding="utf-8")
    return 0


def run(words: list[str] | None = None) -> int:
    """Write or check every page; the exit code."""
    parser = argparse.ArgumentParser(description="Write the generated pages of docs/reference.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    parser.add_argument("--numbers", action="store_true", help="write the README's numbers from the last benchmark")
    options = parser.parse_args(words)
    if options.numbers:
        return write_numbers()
    for name in [variable for variable in os.environ if variable.startswith("MIXGATE_")]:
        del os.environ[name]  # what this machine has set is nobody else's
    stale = []
    for name in PAGES:
        path = REFERENCE / name
        text = rendered(name)
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not options.check:
                path.write_text(text, encoding="utf-8")
    verb = "out of date" if options.check else "written"
    for name in stale:
        click.echo(f"docs/reference/{name}: {verb}")
    if stale and options.check:
        click.echo("run: python build_aux/generate_docs.py")
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(run())
