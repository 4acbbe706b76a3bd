"""`mixgate explain`: why a request went where it went, or where one would go."""

import os
from pathlib import Path
from typing import Any, Final, NoReturn

import click
import msgspec

from gateway.cli.output import EXIT_CONFIGURATION, EXIT_FAILED, fail, load_or_exit, print_table
from gateway.cli.serve import base_url
from gateway.config.locations import find_config, home_folder
from gateway.explain.errors import ExplainError
from gateway.explain.record import Record, decode, encode
from gateway.explain.replay import differences, whole
from gateway.explain.static import read_static
from gateway.explain.view import Explanation, explanation_of_record
from gateway.explain.words import Section, asked_for, headline, outcome_of, sections
from gateway.routing.table import Table
from gateway.state.connection import FILE_NAME
from gateway.state.errors import StoreError
from gateway.state.reader import Reader
from providers.errors import MixgateError

LAST: Final = "last"
BODY_MAX_BYTES: Final = 64 * 1024 * 1024


@click.command("explain")
@click.argument("generation_id", metavar="[ID]", required=False)
@click.option("-f", "--file", "body", type=click.File("rb"), help="Body of a chat completion; - is standard input.")
@click.option("--json", "as_json", is_flag=True, help="As JSON, with all that is known.")
@click.option(
    "--replay", "again", is_flag=True, help="Decide once more from the record; exit 1 if it comes out otherwise."
)
@click.option("--url", help="The running gateway to ask with -f; else the one of the configuration.")
@click.option("--offline", is_flag=True, help="With -f: ask no gateway, take every Endpoint for healthy.")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file; as for `mixgate serve`.")
def command(
    generation_id: str | None,
    body: Any,
    as_json: bool,  # noqa: FBT001  # click passes flags so
    again: bool,  # noqa: FBT001  # click passes flags so
    url: str | None,
    offline: bool,  # noqa: FBT001  # click passes flags so
    config: Path | None,
) -> None:
    """Show who could have answered a request, in which order and why, who was left out, and what came of it.

    ID is what an answer carries as `id` and in the header `x-generation-id`; `last` is the newest. Records are kept for
    7 days, in mixgate.db in MIXGATE_HOME. With -f nothing has happened yet: the decision for that body is shown, and no
    provider is asked. The gateway's client key is read from MIXGATE_CLIENT_KEY.
    """
    if (generation_id is None) == (body is None):
        raise click.UsageError("give the id of a request, or -f and the body of one")
    if body is None:
        if url or offline or config:
            raise click.UsageError("--url, --offline and --config belong to -f")
        _show_record((generation_id or "").strip(), as_json=as_json, again=again)
        return
    if again:
        raise click.UsageError("--replay belongs to an ID")
    if url and offline:
        raise click.UsageError("--url and --offline exclude each other")
    _show_decision(_dry_run(body.read(BODY_MAX_BYTES), url, config, offline=offline), as_json=as_json)


def _dry_run(body: bytes, url: str | None, config: Path | None, *, offline: bool) -> Explanation:
    # The HTTP client and the engine take longer to load than a record takes to read.
    from gateway.cli.dry_run import ask_gateway, decide_offline  # noqa: PLC0415

    if url is not None:
        return ask_gateway(url, body, None)
    catalogue = load_or_exit(find_config(config, os.environ, Path.cwd()), os.environ)
    if not offline:
        gateway = catalogue.gateway
        return ask_gateway(base_url(gateway.host, gateway.port, tls=gateway.tls is not None), body, catalogue)
    try:
        return decide_offline(body, catalogue)
    except MixgateError as error:
        fail(str(error), "correct the body", EXIT_CONFIGURATION)


def _show_decision(explanation: Explanation, *, as_json: bool) -> None:
    if as_json:
        _print_json(msgspec.json.encode(explanation))
        return
    click.echo(asked_for(explanation) + "\n")
    if not explanation.would_ask:
        click.echo("nobody could be asked\n")
    _print(sections(explanation))


def _show_record(generation_id: str, *, as_json: bool, again: bool) -> None:
    record, table = _look_up(generation_id)
    changed: tuple[str, ...] | None = None
    if again:
        if table is None:
            fail("the static side of the decision is no longer in the store", "explain it without --replay")
        changed = differences(record, table)
    if as_json:
        _print_json(_as_json(record, table, changed))
    else:
        explanation = explanation_of_record(record, table)
        click.echo(f"{headline(record)}\n{asked_for(explanation)}\n{outcome_of(record)}\n")
        _print(sections(explanation, record.attempts))
        if changed is not None:
            click.echo("decided once more: the same plan" if not changed else "decided once more: ANOTHER plan")
            for one in changed:
                click.echo(f"  {one}")
    if changed:
        raise SystemExit(EXIT_FAILED)


def _as_json(record: Record, table: Table | None, changed: tuple[str, ...] | None) -> bytes:
    shown: dict[str, Any] = msgspec.json.decode(encode(record if table is None else whole(record, table)))
    if changed is not None:
        shown["replay"] = {"same": not changed, "differences": changed}
    return msgspec.json.encode(shown)


def _look_up(generation_id: str) -> tuple[Record, Table | None]:
    path = home_folder(os.environ) / FILE_NAME
    if not path.is_file():
        fail(
            f"there are no records: {path} does not exist",
            "set MIXGATE_HOME as it is for the gateway, and ask the gateway something first",
        )
    try:
        with Reader(path) as reader:
            data = _newest(reader) if generation_id == LAST else reader.find_record(generation_id)
            if data is None:
                _unknown(generation_id, reader, path)
            record = decode(data)
            static = reader.find_static(record.table)
            return record, None if static is None else read_static(static)
    except StoreError as error:
        fail(
            f"{path} cannot be read: {error}",
            "run it as the gateway's user; if the file is damaged, restart the gateway",
        )
    except ExplainError as error:
        fail(str(error), "use the version of Mixgate that answered the request")


def _newest(reader: Reader) -> bytes | None:
    newest = reader.newest_records(1)
    return newest[0][1] if newest else None


def _unknown(generation_id: str, reader: Reader, path: Path) -> NoReturn:
    """Say why a record is not there."""
    kept = reader.kept()
    if kept.first_id is None or kept.last_id is None:
        fail(f"{path} holds no record yet", "ask the gateway something; a record is written within a second")
    if not generation_id.startswith("gen-"):
        fail(f"{generation_id!r} is no id of a request", "give the `id` of an answer, as in gen-01KABC...")
    if generation_id < kept.first_id:
        fail(
            f"{generation_id} is older than the oldest record that is kept, {kept.first_id}",
            "records are kept for 7 days, or fewer where they take more than 2 GiB",
        )
    if generation_id > kept.last_id:
        fail(
            f"{generation_id} is newer than the newest record, {kept.last_id}",
            "a record is written within a second of the answer's end; else look whether MIXGATE_HOME is the gateway's",
        )
    fail(
        f"there is no record of {generation_id}",
        "check the id; a record is missing where another gateway answered, or where the disk was full",
    )


def _print(tables: list[Section]) -> None:
    for one in tables:
        print_table(one.title, one.columns, one.rows)


def _print_json(data: bytes) -> None:
    click.echo(msgspec.json.format(data, indent=2).decode())
