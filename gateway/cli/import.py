"""`mixgate import`: turn another gateway's configuration, or a price list, into a providers.yaml."""
# ruff: noqa: N999  # named as its command; only import_module loads it

import os
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import click

from gateway.cli.output import EXIT_CONFIGURATION, fail, print_problems
from gateway.config.catalogue import Catalogue
from gateway.config.load import load
from gateway.config.locations import PACKAGED_CONFIG
from gateway.errors import ConfigError
from gateway.imports.amounts import SOURCE_MAX_BYTES
from gateway.imports.draft import Draft, ImportSourceError
from gateway.imports.openrouter_request import Sibling
from gateway.imports.recognise import KINDS, Kind, convert, recognise
from gateway.imports.yaml_text import yaml_text


@click.command("import")
@click.argument("source", type=click.Path(path_type=Path))
@click.option("--from", "kind", type=click.Choice(KINDS), help="What SOURCE is; found out by itself if left out.")
@click.option("--name", help="Name of the Model, for sources that have none for it (portkey, openrouter).")
@click.option("--only", multiple=True, metavar="PATTERN", help="litellm-prices: only models like this; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), help="File to write; one that exists is never overwritten.")
def command(source: Path, kind: Kind | None, name: str | None, only: tuple[str, ...], out: Path | None) -> None:
    """Convert SOURCE into a providers.yaml, on standard output or into --out.

    SOURCE is LiteLLM's price list (JSON), a LiteLLM proxy's config.yaml, a config of Portkey's gateway (JSON), or a
    request or preset for OpenRouter (JSON). Keys are never copied: references to the environment stay references, and
    a key that is written out becomes the name of a variable to export. What has no counterpart is listed in comments.
    The result is one that `mixgate check` accepts.
    """
    text = _read(source)
    try:
        draft = convert(
            kind or recognise(text, str(source)),
            text,
            file=str(source),
            name=name,
            only=only,
            env=os.environ,
            siblings=siblings_of(load(PACKAGED_CONFIG, {})),
            as_of=datetime.now(UTC).date().isoformat(),
        )
    except ImportSourceError as error:
        fail(f"{source}: {error.message}", error.fix, EXIT_CONFIGURATION)
    written = yaml_text(draft)
    _judge(written, draft)
    if out is None:
        click.echo(written, nl=False)
        return
    try:
        # Exclusive: between a look and the writing somebody else may have put a file there.
        with out.open("x", encoding="ascii") as file:
            file.write(written)
    except FileExistsError:
        fail(f"{out} is there already", "name another file, or move that one away", EXIT_CONFIGURATION)
    except OSError as error:
        fail(f"{out} cannot be written: {error.strerror or type(error).__name__}", "name another file")
    click.echo(f"{out} is written; judge it with: mixgate check {out}")


def siblings_of(catalogue: Catalogue) -> Mapping[str, Sequence[Sibling]]:
    """By OpenRouter's id, the other Endpoints of the same Model, without local ones."""
    routed = {
        endpoint.model: [
            other for other in catalogue.endpoints.values() if other.model == endpoint.model and not other.local
        ]
        for endpoint in catalogue.endpoints.values()
        if catalogue.providers[endpoint.provider].dialect == "openrouter"
    }
    return {
        endpoint.upstream_model: [
            Sibling(other.id, other.provider, _provider_facts(catalogue, other.provider), other.upstream_model)
            for other in routed[endpoint.model]
            if catalogue.providers[other.provider].dialect != "openrouter"
        ]
        for endpoint in catalogue.endpoints.values()
        if catalogue.providers[endpoint.provider].dialect == "openrouter"
    }


def _provider_facts(catalogue: Catalogue, name: str) -> Mapping[str, Any]:
    entry = catalogue.providers[name]
    facts: dict[str, Any] = {"dialect": entry.dialect}
    if entry.aws:
        return {**facts, "region": entry.region} if entry.region else facts
    return {
        **facts,
        "base_url": entry.base_url,
        **({"api_key": f"env:{entry.variables[0]}"} if entry.variables else {}),
    }


def _read(source: Path) -> bytes:
    try:
        with source.open("rb") as file:
            return file.read(SOURCE_MAX_BYTES + 1)
    except OSError as error:
        fail(
            f"{source} cannot be read: {error.strerror or type(error).__name__}",
            "name a readable file",
            EXIT_CONFIGURATION,
        )


def _judge(written: str, draft: Draft) -> None:
    """Let the loader itself say whether the result is sound: what is handed out must be usable."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "providers.yaml"
        path.write_text(written, encoding="utf-8")
        try:
            load(path, {})
        except ConfigError as error:
            print_problems(error.problems, "error")
            count = sum(len(cast("Any", provider).models) for provider in draft.providers.values())
            fail(
                f"the result, with {count} models, is not sound: see above",
                "take less with --only, or take what is named above out of the source",
                EXIT_CONFIGURATION,
            )
