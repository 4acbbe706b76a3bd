"""A fleet's Postgres, by SQLAlchemy and psycopg. Imported only where one is configured: they take a second to load."""

import contextlib
import logging
import socket
import threading
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final

import sqlalchemy
from alembic import command
from alembic.config import Config
from alembic.util import CommandError
from sqlalchemy.engine import Connection, Engine, make_url
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError

from gateway.state.errors import NewerStoreError, StoreError

VERSION: Final = 2
"""Of the schema that this release knows: the last in postgres_versions."""
CONNECT_TIMEOUT_S: Final = 5
STATEMENT_TIMEOUT_S: Final = 60
"""What Postgres itself ends; so long may a slow one take."""
SILENCE_MAX_S: Final = 90.0
"""After so long without an answer the connection is cut from our side."""
_MIGRATING: Final = 0x6D69786761746501
"""The advisory lock under which the schema is changed: of a fleet that starts, one does it."""
_FOLDER: Final = Path(__file__).with_name("postgres_versions")
_SETTINGS: Final = (
    f"-c statement_timeout={STATEMENT_TIMEOUT_S * 1000} -c idle_in_transaction_session_timeout=60000 -c timezone=UTC"
)
_KEEPALIVE: Final = {"keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3, "tcp_user_timeout": 60_000}
_log = logging.getLogger("mixgate.postgres")


class PostgresError(StoreError):
    """The fleet's database cannot be used now; the message says why."""


class RefusedError(PostgresError):
    """Postgres does not take a value, and never will."""


def check_url(url: str) -> str:
    """The URL for SQLAlchemy.

    Raises:
        PostgresError: It is not one of a Postgres.
    """
    try:
        parsed = make_url(url)
    except SQLAlchemyError:
        raise PostgresError("the URL of Postgres cannot be read: write postgresql://user:password@host/name") from None
    if parsed.get_backend_name() not in {"postgresql", "postgres"}:
        raise PostgresError("the URL of Postgres begins with postgresql://")
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)


class Database:
    """Connections to it. Any thread; each connection belongs to one."""

    def __init__(self, url: str) -> None:
        """Connect to nothing yet.

        Raises:
            PostgresError: The URL is none.
        """
        self._engine: Engine = sqlalchemy.create_engine(
            check_url(url),
            pool_size=1,
            max_overflow=4,
            pool_timeout=CONNECT_TIMEOUT_S,
            # Statements are prepared by nobody, so that a pooler such as PgBouncer may stand in between.
            connect_args={
                "connect_timeout": CONNECT_TIMEOUT_S,
                "options": _SETTINGS,
                "prepare_threshold": None,
                "application_name": "mixgate",
                **_KEEPALIVE,
            },
        )

    @contextlib.contextmanager
    def connect(self, *, autocommit: bool = False) -> Generator[Connection]:
        """A transaction that is committed at the end; or statements that each are one.

        Raises:
            PostgresError: Postgres cannot be used now; what was done inside may or may not be there.
        """
        try:
            connection = self._engine.connect()
        except SQLAlchemyError as error:
            raise translate(error) from error
        guard = _Guard(connection)
        try:
            with connection:
                if autocommit:
                    yield connection.execution_options(isolation_level="AUTOCOMMIT")
                else:
                    with connection.begin():
                        yield connection
        except SQLAlchemyError as error:
            raise translate(error) from error
        finally:
            guard.end()

    def version(self) -> int:
        """Of which version the schema is; 0: there is none.

        Raises:
            PostgresError: It cannot be asked now.
        """
        with self.connect() as connection:
            return _version(connection)

    def migrate(self, to: int = VERSION) -> None:
        """Bring the schema to this version, or back to another one, all of it or nothing.

        Raises:
            PostgresError: It cannot be done now, or this user may not.
            NewerStoreError: A later release has changed it further than this one can go along with.
        """
        with self.connect() as connection:
            connection.execute(sqlalchemy.text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _MIGRATING})
            version = _version(connection)
            if version > VERSION:
                raise NewerStoreError(f"Postgres is of version {version}, and this Mixgate knows versions to {VERSION}")
            if version != to:
                _step(connection, version, to)
                _log.info("Postgres was brought from version %d to version %d", version, to)

    def prepare(self) -> None:
        """Make sure that the schema can be used: it is brought forward where it is older.

        Raises:
            PostgresError: It cannot.
            NewerStoreError: It is more than one version newer.
        """
        version = self.version()
        if version < VERSION:
            self.migrate()
        elif version > VERSION + 1:
            # The next version only adds to this one; of those behind it nobody knows.
            raise NewerStoreError(f"Postgres is of version {version}, and this Mixgate knows versions to {VERSION + 1}")

    def close(self) -> None:
        """Let go of all connections that nobody uses."""
        self._engine.dispose()


class _Guard:
    """Cuts a connection that has been silent for too long: whoever waits for it is told then."""

    def __init__(self, connection: Connection) -> None:
        raw: Any = connection.connection.dbapi_connection
        self._socket = socket.socket(fileno=socket.dup(raw.fileno()))
        self._timer = threading.Timer(SILENCE_MAX_S, self._cut)
        self._timer.daemon = True
        self._timer.start()

    def _cut(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def end(self) -> None:
        self._timer.cancel()
        self._socket.close()


def _version(connection: Connection) -> int:
    exists = connection.execute(sqlalchemy.text("SELECT to_regclass('alembic_version')")).scalar()
    if exists is None:
        return 0
    found = connection.execute(sqlalchemy.text("SELECT version_num FROM alembic_version")).scalar()
    return int(found or 0)


def _step(connection: Connection, version: int, to: int) -> None:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    config.attributes["connection"] = connection
    revision = str(to) if to else "base"
    try:
        if to > version:
            command.upgrade(config, revision)
        else:
            command.downgrade(config, revision)
    except CommandError as error:
        raise PostgresError(f"there is no way from version {version} to version {to}: {error}") from error


def translate(error: SQLAlchemyError) -> PostgresError:
    """What the driver says, on one line: never the statement, whose values are of clients, nor the URL."""
    cause = error.orig if isinstance(error, DBAPIError) else error
    kind = RefusedError if isinstance(error, DataError | IntegrityError) else PostgresError
    return kind(" ".join(str(cause).split())[:500] or type(cause).__name__)
