"""A connection to Redis, by redis-py. Imported only where Redis is configured: it takes a while to load."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Final

from redis.asyncio import ConnectionPool
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from gateway.sharing.lane import Command, Link, ScriptError

CLOSE_MAX_S: Final = 5.0
"""A last resort: the lane's own limits are shorter."""


def links_of(url: str) -> Callable[[], Link]:
    """What makes connections to the Redis at a URL (`redis://`, `rediss://` or `unix://`).

    Raises:
        ValueError: It is not such a URL.
    """
    pool: Any = ConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]  # its keywords have no types
        url,
        retry=Retry(NoBackoff(), 0),
        # With one, redis-py sends by way of wait_for, which in Python 3.11 may lose that it was cancelled.
        socket_timeout=None,
        socket_connect_timeout=CLOSE_MAX_S,
        health_check_interval=0,
        protocol=2,
    )

    def make() -> Link:
        connection: AbstractConnection = pool.make_connection()  # never given back: a link has one life
        return RedisLink(connection)

    return make


class RedisLink:
    """One connection, for one life."""

    def __init__(self, connection: AbstractConnection) -> None:
        self._connection = connection

    async def open(self) -> None:
        """Connect, sign in, choose the database."""
        try:
            await self._connection.connect()  # type: ignore[no-untyped-call]  # redis-py gives it no types
        except RedisError as error:
            raise ConnectionError(type(error).__name__) from error  # its text may name the address

    async def exchange(self, commands: Sequence[Command]) -> list[Any]:
        """Send all, and read as many answers."""
        connection = self._connection
        answers: list[Any] = []
        try:
            await connection.send_packed_command(connection.pack_commands(commands), check_health=False)
            for _ in commands:
                try:
                    answers.append(await connection.read_response(disable_decoding=True))
                except ResponseError as error:
                    answers.append(ScriptError(str(error)))
        except RedisError as error:
            raise ConnectionError(type(error).__name__) from error
        return answers

    async def close(self) -> None:
        """Break it off."""
        with contextlib.suppress(RedisError, OSError):
            await self._connection.disconnect(nowait=True)
