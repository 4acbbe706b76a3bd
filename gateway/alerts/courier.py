"""Brings notices to one target: signed, in order, tried again with backoff, from a bounded queue."""

import asyncio
import logging
import secrets
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec
import tenacity
from msgspec import Struct

from gateway.alerts.notice import Notice, iso
from gateway.alerts.signing import ID_HEADER, SIGNATURE_HEADER, TIMESTAMP_HEADER, sign
from gateway.config.alerts import AlertTarget
from providers.base import Transport, WireRequest
from providers.errors import ProviderError

QUEUE_MAX: Final = 200
"""Notices that wait for one target; of more the oldest are dropped."""
TRIES_MAX: Final = 6
"""Of one notice."""
BACKOFF_S: Final = 1.0
"""Before the second try; it doubles."""
BACKOFF_MAX_S: Final = 60.0
"""The longest pause before another try."""
CONNECT_TIMEOUT_S: Final = 5.0
"""For the connection to a target."""
TIMEOUT_S: Final = 15.0
"""For all of one try."""
PASSING: Final = frozenset({408, 425, 429})
"""Refusals of 4xx that the next try may not get."""

_log = logging.getLogger("mixgate.alerts")


class PassingError(Exception):
    """A failure that the next try may not have."""


class RefusedError(Exception):
    """A failure that every try would have."""


class Letter(Struct, frozen=True):
    """A notice as it is sent."""

    id: str
    body: bytes


def letter_of(notice: Notice, unix_s: float) -> Letter:
    """The JSON of a notice, with an id by which a receiver knows it again."""
    name = f"alert-{secrets.token_hex(12)}"
    body: dict[str, Any] = {
        "id": name,
        "event": notice.event,
        "created_at": iso(unix_s),
        "message": notice.message,
        "data": notice.data,
    }
    return Letter(name, msgspec.json.encode(body))


class Courier:
    """One for each target.

    Args:
        target: Who is told.
        transport: Follows no redirects, and knows no proxies.
        unix_time_s: The wall clock, for what is signed.
        tries: Of each notice at most; None: TRIES_MAX.
        wait: How tenacity waits between tries; None: longer and longer.
    """

    def __init__(
        self,
        target: AlertTarget,
        transport: Transport,
        unix_time_s: Callable[[], float],
        *,
        tries: int | None = None,
        wait: Any = None,
    ) -> None:
        self.target = target
        self.sent = 0
        self.failed = 0
        """Notices that were given up, or for which there was no room."""
        self._tries = tries or TRIES_MAX
        self._transport = transport
        self._unix_time_s = unix_time_s
        self._wait = wait or tenacity.wait_exponential_jitter(initial=BACKOFF_S, max=BACKOFF_MAX_S)
        self._queue: deque[Letter] = deque()
        self._filled = asyncio.Event()

    def put(self, notice: Notice) -> None:
        """Let it be brought, some time soon."""
        if len(self._queue) >= QUEUE_MAX:
            self._queue.popleft()
            self.failed += 1
            _log.warning("more than %d alerts wait for %s: the oldest is dropped", QUEUE_MAX, self.target.host)
        self._queue.append(letter_of(notice, self._unix_time_s()))
        self._filled.set()

    async def run(self) -> None:
        """Bring what comes, until cancelled."""
        while True:
            await self._filled.wait()
            while self._queue:
                await self._bring(self._queue.popleft())
            self._filled.clear()

    async def deliver(self, letter: Letter) -> None:
        """Bring one, with all its tries.

        Raises:
            RefusedError: The target does not take it.
            PassingError: Nobody took it in all the tries.
        """
        patiently = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(PassingError),
            stop=tenacity.stop_after_attempt(self._tries),
            wait=self._wait,
            reraise=True,
        )
        await patiently(self._try, letter)

    async def _bring(self, letter: Letter) -> None:
        try:
            await self.deliver(letter)
        except (PassingError, RefusedError) as error:
            self.failed += 1
            _log.warning("%s was not told of %s: %s", self.target.host, letter.id, error)
        else:
            self.sent += 1

    async def _try(self, letter: Letter) -> None:
        timestamp = int(self._unix_time_s())
        request = WireRequest(
            url=self.target.url.reveal(),
            body=letter.body,
            headers={
                "content-type": "application/json",
                "accept-encoding": "identity",
                "user-agent": "mixgate",
                ID_HEADER: letter.id,
                TIMESTAMP_HEADER: str(timestamp),
                SIGNATURE_HEADER: sign(self.target.secret.reveal(), timestamp, letter.body),
            },
        )
        try:
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._transport.send(request, connect_timeout_s=CONNECT_TIMEOUT_S)
                status = response.status
                response.close()
        except TimeoutError:
            raise PassingError(f"no answer within {TIMEOUT_S:g} s") from None
        except ProviderError as error:
            raise PassingError(error.message) from error
        if status in PASSING or status >= 500:
            raise PassingError(f"HTTP {status}")
        if 300 <= status < 400:
            raise RefusedError(f"it leads elsewhere (HTTP {status}), which is not followed")
        if not 200 <= status < 300:
            raise RefusedError(f"HTTP {status}")
