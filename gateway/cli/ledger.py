"""`mixgate ledger`: how the ledger's file is, copies of it, checks, versions, and its rows for other programs."""

import csv
import os
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import click
import msgspec

from gateway.cli.fleet import fleet_of, read_fleet, require_fleet
from gateway.cli.output import fail, on_terminal, print_table
from gateway.cli.sheets import inert, print_json
from gateway.cli.windows import Moment, remedy
from gateway.config.locations import home_folder
from gateway.config.stores import PostgresSettings
from gateway.reports.money import usd
from gateway.state.backup import Backup, back_up
from gateway.state.connection import FILE_NAME, StoreLock, open_reader
from gateway.state.entries import ENTRY_COLUMNS, Entry
from gateway.state.errors import StoreError, StoreInUseError, translate
from gateway.state.ledger_reader import PAGE_MAX, Filter, LedgerReader
from gateway.state.migrating import lead_back, take_rows
from gateway.state.outbox import Outbox
from gateway.state.salvage import damaged_files
from gateway.state.schema import MIGRATIONS, version_of
from gateway.state.soundness import find_faults

SYNCS: Final = 20
"""Bytes that are handed to the disk one by one, to say how many it takes in a second."""
SYNCS_MAX_S: Final = 1.0
SCHEMA_NOT_THERE: Final = "none yet"
_JOURNAL: Final = "journal"
_TAILS: Final = ("", "-wal")
Result = TypeVar("Result")


@click.group("ledger")
def command() -> None:
    """Look after the ledger: mixgate.db in MIXGATE_HOME, and the Postgres of a fleet.

    All of it but `migrate` and `recover` may be done while a gateway runs.
    """


@command.command("status", short_help="Show its size, what waits, and how far a fleet's Postgres has come.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.option("--config", type=click.Path(path_type=Path), help="As for `mixgate serve`; it says where the fleet is.")
def status(as_json: bool, config: Path | None) -> None:  # noqa: FBT001  # click passes flags so
    """Show how large the ledger is, what waits to be written, and how far a fleet's Postgres has come.

    Rows that wait in the journal are in no report yet. Exit code 1: the ledger cannot be read, or the fleet not asked.
    """
    path = _path()
    facts = _guarded(path, lambda: _facts(path))
    fleet, failure = fleet_of(config), None
    if fleet is not None:
        try:
            facts |= _fleet_facts(fleet, path)
        except StoreError as error:
            facts["postgres"] = f"cannot be asked: {error}"
            failure = error
    if as_json:
        print_json(facts)
    else:
        rows = [(name.replace("_", " "), str(value)) for name, value in facts.items() if not isinstance(value, list)]
        print_table(f"The ledger in {path}", ("WHAT", "IS"), rows)
        if replicas := facts.get("replicas"):
            columns = ("host", "replica", "release", "silent_s", "waiting")
            cells = [[str(one[name]) for name in columns] for one in replicas]
            print_table("The fleet", tuple(name.upper() for name in columns), cells)
    if failure is not None:
        raise SystemExit(1)


@command.command("backup", short_help="Copy it while a gateway runs, with its SHA-256.")
@click.argument("file", type=click.Path(path_type=Path))
def backup(file: Path) -> None:
    """Copy the ledger to FILE while a gateway runs, and write its SHA-256 to FILE.sha256.

    The copy is of one moment, and checked. It holds no rows that are in the journal alone, which are fractions of a
    second old while all is well. Keep `secret` of MIXGATE_HOME with it: without that, the issued keys in it are void.
    To restore, stop the gateway and put FILE in the place of mixgate.db, with no mixgate.db-wal and -shm beside it.
    """
    path = _path()
    shown = on_terminal()
    if path.is_file() and file.exists():
        fail(f"{file} is there already, and no backup is overwritten", "name another file")
    if path.is_file() and not os.access(file.absolute().parent, os.W_OK | os.X_OK):
        fail(f"{file} cannot be written: {file.absolute().parent} is no folder for this user", "name a file elsewhere")

    def tell(done: int, total: int) -> None:
        if shown:
            click.echo(f"\r{done * 100 // max(1, total)} %", nl=False, err=True)

    made: Backup = _guarded(path, lambda: back_up(path, file, tell))
    if shown:
        click.echo("\r", nl=False, err=True)
    click.echo(f"{made.path}: {made.rows} rows, {made.size_bytes} bytes, version {made.version}\nsha256 {made.sha256}")


@command.command("check", short_help="Check that it is sound, and that its sums are right.")
@click.option("--fleet", is_flag=True, help="The fleet's Postgres instead: whether its sums are those of its rows.")
@click.option("--config", type=click.Path(path_type=Path), help="As for `mixgate serve`; it says where the fleet is.")
def check(fleet: bool, config: Path | None) -> None:  # noqa: FBT001  # click passes flags so
    """Check that the file is sound, and that every sum in it is what its rows come to.

    It reads all of it, some ten seconds for a million rows. Exit code 1: something is wrong.
    """
    path = _path()
    if fleet:
        found = read_fleet(config, lambda reader: [*_fleet_faults(reader)])
    else:
        found = _guarded(path, lambda: [*_shown(find_faults(path))])
    faults = [f"{what}: {fault}" for what, some in found for fault in some]
    for fault in faults:
        click.echo(fault, err=True)
    if faults:
        fail(f"{len(faults)} faults", "restore a backup, or ask for help with what is said above")
    click.echo(f"{len(found)} checks, nothing wrong")


@command.command("migrate", short_help="Bring it to another version of its schema.")
@click.option("--to", type=click.IntRange(min=0), help="The version to bring it to; else the one of this release.")
@click.option("--fleet", is_flag=True, help="The fleet's Postgres instead of the file.")
@click.option("--config", type=click.Path(path_type=Path), help="As for `mixgate serve`; it says where the fleet is.")
def migrate(to: int | None, fleet: bool, config: Path | None) -> None:  # noqa: FBT001  # click passes flags so
    """Bring the ledger to another version of its schema: one back, before the release before is started again.

    A gateway brings it forward by itself. The file is locked by a gateway that runs: stop that first. A step is done
    wholly or not at all, whatever happens meanwhile.
    """
    if fleet:
        settings = require_fleet(config)
        try:
            _migrate_fleet(settings, to)
        except StoreError as error:
            fail(f"the fleet's Postgres cannot be migrated: {error}", "look at its log, and at what its user may do")
        return
    path = _path()
    version = _guarded(path, lambda: lead_back(path, len(MIGRATIONS) if to is None else to))
    click.echo(f"{path} is of version {version}")


@command.command("recover", short_help="Take the rows of another file into it.")
@click.argument("file", required=False, type=click.Path(path_type=Path))
def recover(file: Path | None) -> None:
    """Take the rows of another file into the ledger, as far as they can be read.

    FILE is a backup, or a file that a gateway found damaged and moved aside; else all that were moved aside. A gateway
    does this with damaged files by itself. Rows that are there already are passed over, so that nothing is counted
    twice. Stop the gateway first.
    """
    path = _path()
    files = damaged_files(path) if file is None else [file]
    if not files:
        fail(f"nothing was moved aside from {path}", "name a file")
    for one in files:
        added, lost = _guarded(path, partial(take_rows, path, one))
        click.echo(f"{one.name}: {added} rows taken over, {lost} cannot be read")


@command.command("export", short_help="Write its rows as CSV or JSON, by any filters.")
@click.option(
    "--format", "form", type=click.Choice(["csv", "json"]), default="csv", show_default=True, help="Of the lines."
)
@click.option("--since", type=Moment(), help="From then on: 24h, 7d, or a day as 2026-01-31.")
@click.option("--until", type=Moment(), help="Up to then.")
@click.option("--key", "key_id", help="Id of a client key.")
@click.option("--model", help="A model.")
@click.option("--provider", help="A provider.")
@click.option("--endpoint", help="An endpoint.")
@click.option("--route", help="A route.")
@click.option("--app", help="An application.")
@click.option("--user", help="A user, as the application said.")
@click.option("--session", help="A session, as the application said.")
@click.option("--outcome", type=click.Choice(["ok", "failed", "cancelled"]), help="How it ended.")
@click.option("--tag", help="One of the tags.")
def export(form: str, since: int | None, until: int | None, **wanted: Any) -> None:
    """Write the ledger's rows to standard output, newest first, by any filters.

    CSV has a line of headings; JSON is one object on each line. Costs are in dollars, as decimal text, to the
    nano-dollar; tags are a JSON array. In CSV, a text that a spreadsheet would take for a formula begins with '.
    """
    path = _path()
    filters = Filter(since_unix_us=since, until_unix_us=until, **wanted)
    write = _write_csv if form == "csv" else _write_json
    _guarded(path, lambda: write(_rows(path, filters)))


def _path() -> Path:
    return home_folder(os.environ) / FILE_NAME


def _guarded(path: Path, work: Callable[[], Result]) -> Result:
    """What it gives; words and exit code 1 where the file cannot be used."""
    if not path.is_file():
        fail(
            f"there is no ledger: {path} does not exist",
            "set MIXGATE_HOME as it is for the gateway, and ask the gateway something first",
        )
    try:
        return work()
    except StoreInUseError:
        fail(f"a gateway has {path} open", "stop it first")
    except StoreError as error:
        fail(f"{path}: {error}", remedy(error))


def _facts(path: Path) -> dict[str, Any]:
    journals = sorted((path.parent / _JOURNAL).glob("*.journal"))
    connection = open_reader(path)
    try:
        version = version_of(connection)
        keys = connection.execute("SELECT count(*) FROM client_key WHERE deleted_us IS NULL").fetchone()[0]
    except sqlite3.Error as error:
        raise translate(error) from error
    finally:
        connection.close()
    outbox = Outbox(path)
    try:
        rows = outbox.last
    finally:
        outbox.close()
    per_s = _syncs_per_s(path.parent)
    return {
        "file": str(path),
        "gateway": "running" if _is_held(path) else "not running",
        "rows": rows,
        "issued_keys": keys,
        "size_bytes": sum(_size_bytes(path.with_name(path.name + tail)) for tail in _TAILS),
        "wal_bytes": _size_bytes(path.with_name(path.name + "-wal")),
        "journal_files": len(journals),
        "journal_bytes": sum(_size_bytes(one) for one in journals),
        "version": version,
        "version_of_this_release": len(MIGRATIONS),
        "sqlite": sqlite3.sqlite_version,
        "fsyncs_per_s": None if per_s is None else round(per_s),
    }


def _fleet_facts(settings: PostgresSettings, path: Path) -> dict[str, Any]:
    # SQLAlchemy takes a second to import, which only a fleet should pay for.
    from gateway.state.postgres_database import VERSION, Database  # noqa: PLC0415
    from gateway.state.postgres_reader import PostgresLedgerReader  # noqa: PLC0415

    database = Database(settings.url.reveal())
    try:
        version = database.version()
        replicas = PostgresLedgerReader(database).replicas() if version else ()
    finally:
        database.close()
    outbox = Outbox(path)
    try:
        waiting, replica = outbox.last - outbox.position, outbox.replica
    finally:
        outbox.close()
    return {
        "replica": replica,
        "rows_to_be_sent": waiting,
        "postgres_version": version or SCHEMA_NOT_THERE,
        "postgres_version_of_this_release": VERSION,
        "replicas": [
            {
                "host": one.host,
                "replica": one.replica,
                "release": one.release,
                "silent_s": round(one.silent_s, 1),
                "waiting": one.waiting,
            }
            for one in replicas
        ],
    }


def _fleet_faults(reader: Any) -> Iterator[tuple[str, list[str]]]:
    for by, faults in reader.faults():
        yield f"sums by {by}", faults


def _migrate_fleet(settings: PostgresSettings, to: int | None) -> None:
    from gateway.state.postgres_database import VERSION, Database  # noqa: PLC0415 # as above

    database = Database(settings.url.reveal())
    try:
        database.migrate(VERSION if to is None else to)
        click.echo(f"the fleet's Postgres is of version {database.version()}")
    finally:
        database.close()


def _shown(found: Iterator[tuple[str, list[str]]]) -> Iterator[tuple[str, list[str]]]:
    """One after the other, with a word about each on a terminal."""
    for what, faults in found:
        if on_terminal():
            click.echo(f"{what}: {'ok' if not faults else f'{len(faults)} faults'}", err=True)
        yield what, faults


def _is_held(path: Path) -> bool:
    lock = StoreLock(path)
    try:
        lock.take()
    except (StoreInUseError, OSError):
        return True
    lock.release()
    return False


def _syncs_per_s(folder: Path) -> float | None:
    """How often this disk can be made to keep something, in a second; None where it cannot be written."""
    path = folder / f"sync-{os.getpid()}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError:
        return None
    try:
        started_s, done = time.monotonic(), 0
        while done < SYNCS and time.monotonic() - started_s < SYNCS_MAX_S:
            os.write(descriptor, b"x")
            os.fsync(descriptor)
            done += 1
        return done / max(1e-9, time.monotonic() - started_s)
    except OSError:
        return None
    finally:
        os.close(descriptor)
        path.unlink()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _rows(path: Path, filters: Filter) -> Iterator[dict[str, Any]]:
    before: int | None = None
    with LedgerReader(path) as reader:
        while True:
            page = reader.entries(filters, before=before, count=PAGE_MAX)
            yield from map(_row, page.entries)
            before = page.before
            if before is None:
                return


def _row(entry: Entry) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in ENTRY_COLUMNS:
        value = getattr(entry, name)
        if name.endswith("_in_nusd"):
            row[name.replace("_in_nusd", "_usd")] = None if value is None else usd(value)
        elif name == "tags":
            row[name] = msgspec.json.decode(value) if value else []
        else:
            row[name] = value
    return row


def _write_csv(rows: Iterator[dict[str, Any]]) -> None:
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow([name.replace("_in_nusd", "_usd") for name in ENTRY_COLUMNS])
    for row in rows:
        tags = msgspec.json.encode(row["tags"]).decode() if row["tags"] else ""
        table.writerow([inert(value) for value in (row | {"tags": tags}).values()])


def _write_json(rows: Iterator[dict[str, Any]]) -> None:
    for row in rows:
        sys.stdout.buffer.write(msgspec.json.encode(row) + b"\n")
    sys.stdout.buffer.flush()
