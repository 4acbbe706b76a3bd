"""What the dashboard is given of the gateway that it belongs to, and the way in, which loads it when first wanted."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct

from gateway.dashboard.roles import Role
from gateway.fleet import Fleet
from gateway.health import Health
from gateway.keys.key import KeyRecord
from gateway.ledger.entry import Intent

Scope = Mapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class Door(Protocol):
    """What the gateway itself knows of who may come in."""

    def check_host(self, scope: Scope) -> str:
        """The Host by which we were reached; a ForbiddenError where it is not ours."""
        ...

    def is_open_to(self, scope: Scope) -> bool:
        """Whether no token is asked of whoever sent this; a ForbiddenError where none could help either."""
        ...

    def tokens_for(self, scope: Scope) -> Sequence[tuple[bytes, Role]]:
        """Digests of the tokens that are good for whoever sent this, and what each lets see."""
        ...

    def digest(self, token: str) -> bytes:
        """A token as `tokens_for` has it."""
        ...


class Used(Protocol):
    """What a key has spent, in nano-USD."""

    @property
    def day_in_nusd(self) -> int: ...  # noqa: D102
    @property
    def week_in_nusd(self) -> int: ...  # noqa: D102
    @property
    def month_in_nusd(self) -> int: ...  # noqa: D102
    @property
    def ever_in_nusd(self) -> int: ...  # noqa: D102
    @property
    def reserved_in_nusd(self) -> int: ...  # noqa: D102


class Spending(Protocol):
    """What keys have spent, wherever that is kept: `Budgets` of a StateStore."""

    async def usage(self, key_ids: Sequence[str], unix_s: float) -> Mapping[str, Used]:
        """By key and window, and what is reserved."""
        ...


class Shelf(Protocol):
    """What several processes share: bytes by name, for a time. `Answers` of a StateStore."""

    async def get(self, tenant: str, digest: str, unix_s: float) -> bytes | None: ...  # noqa: D102
    def put(self, tenant: str, digest: str, data: bytes, ttl_s: float, unix_s: float) -> None: ...  # noqa: D102
    def drop(self, tenant: str, digest: str) -> None: ...  # noqa: D102


class Tries(Protocol):
    """How often somebody tried to sign in, wherever that is counted. `Tries` of a StateStore."""

    async def count(self, name: str, now_s: float) -> float | None: ...  # noqa: D102


class Sources(Struct, frozen=True, kw_only=True):
    """What the dashboard shows, of the gateway that it belongs to."""

    path: Path
    """mixgate.db."""
    door: Callable[[], Door]
    fleet: Callable[[], Fleet]
    health: Health
    live: Callable[[], Awaitable[tuple[int, Sequence[tuple[Intent, int]]]]]
    """How many requests are being answered, and Attempts on their way, with tokens that have come of each: of all
    workers."""
    key_records: Callable[[], Iterable[KeyRecord]]
    spending: Spending
    unix_s: Callable[[], float]
    monotonic_s: Callable[[], float]
    shelf: Shelf | None = None
    """Where several processes keep who is signed in; None: there is but this one."""
    seal: bytes = b""
    """A secret of theirs."""
    tries: Tries
    """Of all of them."""


class Entrance:
    """The dashboard as an application. It takes as long to load as much of the rest, and most requests are not for it.

    Args:
        sources: What it shows.
    """

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._loading = asyncio.Lock()
        self._dashboard: Any = None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answer one request."""
        if self._dashboard is None:
            async with self._loading:
                if self._dashboard is None:
                    site = await asyncio.to_thread(import_module, "gateway.dashboard.site")
                    self._dashboard = site.Dashboard(self._sources)
        await self._dashboard(scope, receive, send)

    async def aclose(self) -> None:
        """Give everything back."""
        if self._dashboard is not None:
            await self._dashboard.aclose()
