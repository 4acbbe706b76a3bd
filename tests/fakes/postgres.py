"""A Postgres of the tests' own: one server for all of them, started when it is first asked for, a database for each."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

import psycopg
import pytest

PLACES = ("/usr/lib/postgresql/15/bin", "/usr/lib/postgresql/16/bin", "/usr/lib/postgresql/17/bin", "/usr/local/bin")
START_S = 60.0
_numbers = count()


def programs() -> Path:
    """Where Postgres is, or the test is skipped."""
    for place in PLACES:
        if (Path(place) / "initdb").exists():
            return Path(place)
    found = shutil.which("initdb")
    if found is None:
        pytest.skip("no Postgres is installed here")
    return Path(found).resolve().parent


class Server:
    """It keeps its port when it is started anew."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mixgate-postgres-"))
        self.programs = programs()
        # As root it refuses to run.
        self.user = pwd.getpwnam("postgres") if os.geteuid() == 0 else None
        if self.user is not None:
            os.chown(self.folder, self.user.pw_uid, self.user.pw_gid)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.data = self.folder / "data"
        self._run("initdb", "-D", self.data, "-A", "trust", "-U", "mixgate", "--no-sync", "-E", "UTF8", "--locale=C")
        self.process: subprocess.Popen | None = None
        self.start()

    def _as_user(self) -> dict:
        if self.user is None:
            return {}
        return {"user": self.user.pw_uid, "group": self.user.pw_gid, "extra_groups": [], "cwd": self.folder}

    def _run(self, program: str, *arguments) -> None:
        done = subprocess.run(
            [self.programs / program, *map(str, arguments)], capture_output=True, check=False, **self._as_user()
        )
        assert done.returncode == 0, done.stderr.decode()

    def start(self) -> None:
        """Run, and wait until it answers."""
        self.process = subprocess.Popen(
            [
                *(self.programs / "postgres", "-D", self.data, "-p", str(self.port), "-k", self.folder),
                *("-c", "listen_addresses=127.0.0.1", "-c", "fsync=off", "-c", "max_connections=50"),
                *("-c", "shared_buffers=16MB", "-c", "autovacuum=off"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **self._as_user(),
        )
        end_s = time.monotonic() + START_S
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=2).close()
            except psycopg.OperationalError:
                assert time.monotonic() < end_s, "Postgres does not start"
                time.sleep(0.05)
            else:
                return

    def stop(self) -> None:
        """End without a word to anybody, as in a crash; what was committed is there at the next start."""
        if self.process is not None:
            self.process.send_signal(signal.SIGQUIT)
            self.process.wait(START_S)
            self.process = None

    def url(self, database: str, port: int | None = None) -> str:
        """Of one of its databases."""
        return f"postgresql://mixgate@127.0.0.1:{port or self.port}/{database}"

    def make_database(self) -> str:
        """The name of a new, empty one."""
        name = f"fleet_{next(_numbers)}"
        self.execute("postgres", f"CREATE DATABASE {name}")
        return name

    def execute(self, database: str, statement: str, values=()) -> list:
        """What a statement gives."""
        with psycopg.connect(self.url(database), autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        """End, and leave nothing."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def postgres():
    """A server until the end of the block."""
    server = Server()
    try:
        yield server
    finally:
        server.close()
