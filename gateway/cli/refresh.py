"""`mixgate refresh`: ask OpenRouter what its models cost and can do now, keep it, and say what differs."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from gateway.cli.output import EXIT_CONFIGURATION, EXIT_FAILED, fail, load_or_exit, print_table
from gateway.config.catalogue import Catalogue, ProviderEntry
from gateway.config.load import parse, read_text
from gateway.config.locations import PACKAGED_CONFIG, find_config, home_folder
from gateway.config.refreshed import (
    AskedProvider,
    Figure,
    RefreshedCatalogue,
    read_refreshed,
    refreshed_file,
    section_of,
)
from gateway.config.schema import ModelSection
from gateway.imports.changes import GONE, Change, changes_of, paste_lines
from gateway.imports.draft import ImportSourceError
from gateway.imports.fetch import Catalogue as Published
from gateway.imports.openrouter_models import with_origin

DIALECT = "openrouter"


@click.command("refresh")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file; as for `mixgate serve`.")
@click.option("--provider", "only", metavar="NAME", help="Ask only this provider, one of `dialect: openrouter`.")
@click.option("--dry-run", is_flag=True, help="Show what has changed, and write nothing.")
def command(config: Path | None, only: str | None, dry_run: bool) -> None:  # noqa: FBT001  # click's way of a flag
    """Ask OpenRouter for context sizes, limits, prices, capabilities and last days, and show what has changed.

    What was learned goes into catalogue.json in MIXGATE_HOME, each figure with its source and date. From there it
    fills in what the configuration leaves out; figures that the configuration has win, and it is never written to:
    where they differ, a block to paste is printed. A running gateway takes the new facts over by itself.
    """
    path = find_config(config, os.environ, Path.cwd())
    catalogue = load_or_exit(path, os.environ)
    providers = _providers(catalogue, only)
    today = datetime.now(UTC).date().isoformat()
    asked = [_ask(provider, catalogue, path, today) for provider in providers]
    if dry_run:
        click.echo("nothing was written: --dry-run")
        return
    target = refreshed_file(home_folder(os.environ))
    _keep(target, asked)
    click.echo(f"{target} holds {sum(len(one.models) for one in asked)} models as of {today}")


def _providers(catalogue: Catalogue, only: str | None) -> list[ProviderEntry]:
    speaking = [entry for entry in catalogue.providers.values() if entry.dialect == DIALECT]
    if only is not None:
        speaking = [entry for entry in speaking if entry.name == only]
    if not speaking:
        what = f"no provider {only} of `dialect: {DIALECT}`" if only else f"no provider of `dialect: {DIALECT}`"
        names = ", ".join(entry.name for entry in catalogue.providers.values() if entry.dialect == DIALECT) or "none"
        fail(f"there is {what} in {catalogue.path}", f"name one that there is: {names}", EXIT_CONFIGURATION)
    return speaking


def _ask(provider: ProviderEntry, catalogue: Catalogue, path: Path, today: str) -> AskedProvider:
    """Ask one provider and show what differs."""
    published = Published(
        provider.base_url,
        api_key=provider.api_key.reveal() if provider.api_key else None,
        proxy=provider.proxy.reveal() if provider.proxy else None,
    )
    source = f"{provider.base_url}/models"
    own = [endpoint for endpoint in catalogue.endpoints.values() if endpoint.provider == provider.name]
    try:
        listed = published.list_models(lambda said: click.echo(f"{provider.name}: {said}")).models
        behind = {
            endpoint.upstream_model: published.list_endpoints(endpoint.upstream_model)
            for endpoint in own
            if endpoint.upstream_model in listed
        }
    except ImportSourceError as error:
        fail(f"{provider.name}: {error.message}", error.fix, EXIT_FAILED)
    finally:
        published.close()
    models = {name: with_origin(facts, source, today) for name, facts in listed.items()}
    for endpoint in own:
        if endpoint.upstream_model not in listed:
            models[endpoint.upstream_model] = with_origin({"state": GONE}, f"absent from {source}", today)
    written = _written_rows(path, provider.name)
    changes = [
        change
        for endpoint in own
        for change in changes_of(
            written.get(endpoint.upstream_model), section_of(models[endpoint.upstream_model]), endpoint.id
        )
    ]
    _show(provider.name, changes, {name: found.words() for name, found in behind.items() if found is not None})
    _offer(provider.name, written, models, changes, path)
    return AskedProvider(dialect=provider.dialect, base_url=provider.base_url, models=models)


def _written_rows(path: Path, provider: str) -> Mapping[str, ModelSection]:
    """The rows as the file has them, without what the loader fills in."""
    _, file = parse(read_text(path), str(path))
    return file.providers[provider].models


def _show(provider: str, changes: list[Change], behind: Mapping[str, str]) -> None:
    if changes:
        rows = [(one.endpoint, one.field, one.ours, one.theirs) for one in changes]
        print_table(f"{provider}: what differs from the file", ("endpoint", "figure", "file", "now"), rows)
    else:
        click.echo(f"{provider}: nothing differs from the file")
    if behind:
        print_table(f"{provider}: who answers there", ("model", "by"), [*behind.items()])


def _offer(
    provider: str,
    written: Mapping[str, ModelSection],
    models: Mapping[str, Mapping[str, Figure]],
    changes: list[Change],
    path: Path,
) -> None:
    """Print the rows to paste, where figures of the user's own file are others."""
    stale = {one.endpoint.removeprefix(f"{provider}/") for one in changes if one.ours != ""}
    if not stale or _is_shipped(path):
        return
    click.echo(f"To have these figures, paste over the rows of {provider} in {path}, and keep their `claims`:")
    for line in paste_lines({name: (written[name], section_of(models[name])) for name in written if name in stale}):
        click.echo(line)
    click.echo()


def _is_shipped(path: Path) -> bool:
    try:
        return path.samefile(PACKAGED_CONFIG)
    except OSError:
        return False


def _keep(target: Path, asked: list[AskedProvider]) -> None:
    """Write what was learned in place of what was known of the same providers, all at once or not at all."""
    before, _ = read_refreshed(target)
    places = {(one.dialect, one.base_url) for one in asked}
    others = [one for one in before.providers if (one.dialect, one.base_url) not in places]
    text = msgspec.json.encode(RefreshedCatalogue(providers=[*others, *asked]))
    part = target.with_name(f"{target.name}.{os.getpid()}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except OSError as error:
        part.unlink(missing_ok=True)
        fail(f"{target} cannot be written: {error.strerror or type(error).__name__}", "see that MIXGATE_HOME can be")
