"""Write the pages of docs/reference that follow from the code: `python build_aux/generate_docs.py`.

With `--check` nothing is written; it exits 1 and names the pages that are out of date.
"""  # noqa: INP001  # scripts, not a package

import argparse
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import click
from docs_limits import limit_sections
from docs_words import ADVICE, KEY_NOTES, ROOT_ADVICE, VARIABLES
from msgspec.structs import fields

from gateway.cli import COMMANDS, main
from gateway.config.dialects import DIALECTS
from gateway.config.json_schema import json_schema
from gateway.config.load import load
from gateway.config.locations import PACKAGED_CONFIG
from gateway.config.overrides import PREFIX, SETTING_KEYS
from gateway.server.errors import RETRY_STATUSES
from local_backend.errors import LocalError
from local_backend.file_errors import LocalBackendError
from providers import local
from providers.base import Capabilities
from providers.errors import BadRequestError, MixgateError, ProviderError, ServerError
from providers.quirks import Quirks

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
HELP_WIDTH = 100
PICO_PER_USD_MTOK = 10**6
MARK = "<!-- Written by build_aux/generate_docs.py from the code. Change that, then run it again. -->"
ERROR_MODULES = ("providers.errors", "gateway.errors", "gateway.server.refusals")
PAGES: dict[str, Callable[[], Iterator[str]]] = {}


def page(name: str) -> Callable[[Callable[[], Iterator[str]]], Callable[[], Iterator[str]]]:
    """Register a function that yields the lines of one page."""

    def register(lines: Callable[[], Iterator[str]]) -> Callable[[], Iterator[str]]:
        PAGES[name] = lines
        return lines

    return register


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A Markdown table."""
    names = [*columns]
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
    yield ""


def meaning(kind: type) -> str:
    """What a class says of itself, without the list of its arguments."""
    return inspect.getdoc(kind).partition("\n\n")[0].replace("\n", " ")


# ---- providers.yaml

SECTIONS = (
    ("", "The file", ""),
    ("GatewaySection", "gateway", "`gateway:`"),
    ("TlsSection", "gateway.tls", "`gateway: {tls: {...}}`"),
    ("ProviderSection", "providers.NAME", "`providers: {NAME: {...}}`"),
    ("QuirksSection", "providers.NAME.quirks", "`quirks: {...}`"),
    ("ModelSection", "providers.NAME.models.ID", "`models: {ID: {...}}`"),
    ("PriceSection", "price", "`price: {...}` of a model"),
    ("PriceOverrideSection", "price.overrides", "items of `price: {overrides: [...]}`"),
    ("CapabilitiesSection", "capabilities", "`capabilities: {...}` or `capabilities: [...]` of a model"),
    ("ClaimSection", "claims", "items of `claims: [...]` of a model"),
    ("RouteSection", "routes.NAME", "`routes: {NAME: {...}}`"),
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
    safe = {field.name: field.default for owner in ANSWERS.get(heading, ()) for field in fields(owner)}
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
            else "required",
            f"`{facts.api_key}`" if facts.api_key else "none",
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
        command = import_module(f"gateway.cli.{name}").command
        context = click.Context(command, parent=group, info_name=name, terminal_width=HELP_WIDTH)
        yield from _help(f"mixgate {name}", command, context)
    yield "## Environment\n"
    yield "Each setting of the [`gateway` section](providers-yaml.md#gateway) is read from a flag of `mixgate"
    yield "serve`, else from its variable, else from the file. Lists are separated by commas.\n"
    variables = [(f"`{PREFIX}{key.upper()}`", f"`--{key.replace('_', '-')}`") for key in SETTING_KEYS]
    yield from table(("variable", "flag"), variables)
    yield "Besides these:\n"
    yield from table(("variable", "meaning"), [(f"`{name}`", text) for name, text in VARIABLES.items()])


def _help(title: str, command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {title}\n"
    yield "```text"
    yield "\n".join(line.rstrip() for line in command.get_help(context).splitlines())
    yield "```\n"


# ---- errors


@page("errors.md")
def errors() -> Iterator[str]:
    """Every error class: what a client sees, and what to do."""
    for module in ERROR_MODULES:
        import_module(module)
    every = sorted(_below(MixgateError), key=lambda kind: (kind.status, kind.code))
    yield "# Errors, by code\n"
    yield MARK + "\n"
    yield "An error that reaches a client has the shape of [the HTTP reference](http.md#errors). `code` is"
    yield "stable: match on it, not on the message. `source` says whose fault it is. **Next tried**: before the"
    yield "first content, the gateway asks the next Endpoint by itself; you see the error only when nobody"
    yield "could answer. **Again**: whether the same request may do better later (`x-should-retry`).\n"
    yield "## The gateway's own refusals\n"
    gateway = [kind for kind in every if kind.source == "gateway" and kind.code not in ("refused", "config_invalid")]
    yield from table(
        ("code", "status", "again", "meaning", "what to do"),
        [
            (f"`{kind.code}`", str(kind.status), _again(kind), meaning(kind), _advice(kind.code, gateway=True))
            for kind in _by_code(gateway)
        ],
    )
    yield "## A provider failed, or the way to it\n"
    yield "When several Endpoints failed, the client gets the one error that tells it most about what to do; `attempts`"
    yield "lists them all.\n"
    providers = [kind for kind in every if kind.source == "provider"]
    yield from table(
        ("code", "status", "next tried", "again", "meaning", "what to do"),
        [
            (
                f"`{kind.code}`",
                str(kind.status),
                "yes" if kind.retryable else "no",
                _again(kind),
                meaning(kind),
                _advice(kind.code, gateway=False),
            )
            for kind in _by_code(providers)
        ],
    )
    yield from _local_errors()


def _by_code(kinds: Iterable[type[Any]]) -> list[type[Any]]:
    """One class per code: where a base class shares its code with a leaf, the leaf says more."""
    return [*{kind.code: kind for kind in sorted(kinds, key=lambda kind: len(kind.__mro__))}.values()]


def _below(kind: type[Any]) -> set[type[Any]]:
    found = {kind}
    for child in kind.__subclasses__():
        found |= _below(child)
    return {each for each in found if each.__module__ in ERROR_MODULES}


def _again(kind: type[Any]) -> str:
    return "yes" if kind.status in RETRY_STATUSES else "no"


def _advice(code: str, *, gateway: bool) -> str:
    found = (ROOT_ADVICE.get(code) if gateway else None) or ADVICE.get(code)
    if found is None:
        raise SystemExit(f"build_aux/docs_words.py says nothing about what to do on {code}")
    return found


def _local_errors() -> Iterator[str]:
    yield "## The local backend\n"
    yield "The worker's own codes stand under `provider_code`; the client's `code` is the one beside it.\n"
    kinds = [kind for kind in LocalError.__subclasses__() if kind.__module__ == LocalError.__module__]
    rows = []
    for kind in kinds:
        seen: type[ProviderError] = local._BY_CODE.get(  # noqa: SLF001  # the table is the mapping; nothing else tells it
            kind.code, BadRequestError if kind.status < 500 else ServerError
        )
        rows.append((f"`{kind.code}`", f"`{seen.code}`", meaning(kind), _advice(kind.code, gateway=False)))
    yield from table(("provider_code", "code", "meaning", "what to do"), rows)
    yield "## Files and downloads\n"
    yield "Shown by `mixgate pull` and `mixgate doctor`, or as the reason why a local model is off; never as an"
    yield "answer's `code`. Each message says what to do.\n"
    files = [kind for kind in _all_below(LocalBackendError) if kind.code != LocalBackendError.code]
    yield from table(("code", "meaning"), [(f"`{kind.code}`", meaning(kind)) for kind in files])
    yield "## The configuration\n"
    yield f"`config_invalid`: {meaning(import_module('gateway.errors').ConfigError)} It never reaches a client:"
    yield "`mixgate serve` and `mixgate check` exit 2, and a running gateway keeps its old configuration and"
    yield "logs what is wrong.\n"


def _all_below(kind: type[Any]) -> list[type[Any]]:
    found = [child for child in kind.__subclasses__() if child.__module__ == LocalBackendError.__module__]
    return [*found, *(grandchild for child in found for grandchild in _all_below(child))]


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


def run(words: list[str] | None = None) -> int:
    """Write or check every page; the exit code."""
    parser = argparse.ArgumentParser(description="Write the generated pages of docs/reference.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is out of date")
    options = parser.parse_args(words)
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
        print(f"docs/reference/{name}: {verb}")  # noqa: T201  # a command-line tool
    if stale and options.check:
        print("run: python build_aux/generate_docs.py")  # noqa: T201  # a command-line tool
    return 1 if stale and options.check else 0


if __name__ == "__main__":
    sys.exit(run())
