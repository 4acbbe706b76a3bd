"""The contract of a StateStore: what the processes of one fleet share, whoever keeps it.

Whatever a request must wait for is awaited; an implementation that knows the answer gives it without a task switch.
Whatever is told at the end of a request is not awaited, as it is told in `finally` blocks and by `close`: it never
waits, never raises, and is delivered in order behind, as often as it takes. Times are arguments: `now_s` is the
caller's monotonic clock and means nothing to anybody else, `unix_s` its wall clock.
"""

from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from gateway.keys.budget import Offer
from gateway.keys.limits import Allowance, Kind, Limited, Pass
from gateway.keys.purse import Grant, Refusal, Usage

UNREACHABLE_RETRY_S: Final = 1.0
"""When to come back where whoever keeps the budgets cannot be reached."""
SESSIONS_MAX: Final = 65_536
"""Conversations whose Endpoint is remembered; those that were silent longest go first."""
SESSION_TTL_S: Final = 600.0
"""How long one is remembered after its last request: as long as caches of providers keep it, about."""
SESSION_NAME_MAX_BYTES: Final = 256
ANSWER_MAX_BYTES: Final = 4 * 1024 * 1024
"""A larger answer is not kept."""
ANSWER_TTL_MAX_S: Final = 86_400.0
UNDROPPED_MAX: Final = 4096
"""What is to be forgotten while nobody can be told, and is told later; beyond that, the oldest ends by itself."""
HINT_MAX_S: Final = 300.0
"""No hint holds longer."""
TRIES_MAX: Final = 5
"""Tries to sign in of one address a minute, at all processes together."""
TRIES_WINDOW_S: Final = 60.0
"""How long a try counts."""


class Later:
    """An answer that takes asking somebody: nothing is begun before it is awaited, and it may be dropped instead."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Callable[[], Coroutine[Any, Any, Refusal | None]]) -> None:
        self._ask = ask

    def __await__(self) -> Generator[Any, Any, Refusal | None]:
        """Ask."""
        return self._ask().__await__()


class Budgets(Protocol):
    """What issued keys may spend: one lease for a request, one hold on it for each of its Attempts."""

    def has_budget(self, key_id: str) -> bool:
        """Whether a key, or a team above it, has any budget: only then offers have to be worked out."""
        ...

    async def reserve(
        self, lease_id: str, key_id: str, offers: Sequence[Offer], *, unix_s: float, now_s: float, total_s: float
    ) -> Grant | Refusal:
        """Set aside the most that a request may cost; as `Purse.reserve`. Asked twice, it is granted once.

        Cancelled while it waits, nothing stays reserved.

        Raises:
            KeysUnavailableError: The key has a budget, and what is left of it cannot be known now.
        """
        ...

    def hold(self, lease_id: str, attempt_id: str, worst_in_nusd: int, *, unix_s: float) -> Refusal | Later | None:
        """An Attempt is about to be sent. None: it may be; a Refusal: it must not be.

        Where the request's own lease covers it, which is the rule, that is known at once. Otherwise this gives
        something to be awaited once, which may raise KeysUnavailableError; cancelled, nothing is held.
        """
        ...

    def settle(self, lease_id: str, attempt_id: str, cost_in_nusd: int | None) -> None:
        """An Attempt has ended and cost so much; None: nobody knows, so the worst case counts. Idempotent."""
        ...

    def release(self, lease_id: str) -> None:
        """The request is over: give back all but what is held for Attempts that are not settled yet. Idempotent."""
        ...

    async def usage(self, key_ids: Sequence[str], unix_s: float) -> Mapping[str, Usage]:
        """What keys and their children spent, by window, and have reserved: of the whole fleet as far as known."""
        ...


class Rates(Protocol):
    """How often issued keys may ask."""

    async def enter(self, key_id: str, tokens: int, now_s: float) -> Pass | Limited:
        """Let a request in if every limit of the key and its teams allows it; as `Limiter.enter`.

        Where whoever counts for all cannot be reached, this process's own count decides.
        """
        ...

    def leave(self, held: Pass, tokens: int | None, now_s: float) -> None:
        """A request that was let in is over, and came to so many tokens; None: nobody knows. Idempotent."""
        ...

    async def allowances(self, key_id: str, now_s: float) -> dict[Kind, Allowance]:
        """What is left, by limit, of the tightest of the chain."""
        ...


class Hint(Struct, frozen=True, gc=False):
    """What another process says of an Endpoint."""

    endpoint_id: str
    kind: Literal["open", "parked"]
    """open: it failed there too often. parked: it asked to be left alone."""
    since_unix_s: float
    until_unix_s: float


class Hints(Protocol):
    """What processes tell one another about Endpoints. No more than hints: one's own evidence counts first."""

    def tell(self, hint: Hint) -> None:
        """Tell the others. Never waits; may be lost."""
        ...

    def heard(self, unix_s: float) -> Sequence[Hint]:
        """What others say now, as of a moment ago; nothing that has passed, and nothing that was told from here."""
        ...


class Sessions(Protocol):
    """Which Endpoint answered a conversation last: its provider may still have the beginning in its cache."""

    async def find(self, session: str, unix_s: float) -> str | None:
        """What was remembered; None where nobody knows, or could say in time."""
        ...

    def remember(self, session: str, endpoint_id: str, unix_s: float) -> None:
        """This Endpoint answered: its id, and whatever else the caller wants to find. Never waits; may be lost."""
        ...


class Answers(Protocol):
    """Bytes of answers that may be given again, each tenant's apart."""

    async def get(self, tenant: str, digest: str, unix_s: float) -> bytes | None:
        """What was put; None where there is nothing (any more), or nobody could say in time."""
        ...

    def put(self, tenant: str, digest: str, data: bytes, ttl_s: float, unix_s: float) -> None:
        """Keep up to ANSWER_MAX_BYTES for `ttl_s`, at most ANSWER_TTL_MAX_S. Never waits; may be lost."""
        ...

    def drop(self, tenant: str, digest: str) -> None:
        """Forget it."""
        ...


class Tries(Protocol):
    """How often somebody tried what nobody may try often: TRIES_MAX times in TRIES_WINDOW_S."""

    async def count(self, name: str, now_s: float) -> float | None:
        """Count a try. Gives how long to wait where it is one too many, which is not counted; None: go on.

        Where whoever counts for all cannot be reached, this process's own count decides.
        """
        ...


class StoreStatus(Struct, frozen=True, gc=False):
    """How a StateStore is doing, for /readyz, metrics and people."""

    kind: Literal["memory", "redis", "owner"]
    """owner: another process of this machine keeps it."""
    up: bool
    """Whether it answers."""
    whole: bool
    """Whether keys with a budget can be granted anything: false while it is away or being rebuilt."""
    reason: str = ""
    """Why not, in words without addresses or secrets."""
    waiting: int = 0
    """Things told that are not delivered yet."""
    rebuilds: int = 0
    """How often what was lost was put together again."""


class StateStore(Protocol):
    """All that is shared. One for the life of a process; belongs to one event loop."""

    @property
    def budgets(self) -> Budgets:
        """What issued keys may spend."""
        ...

    @property
    def rates(self) -> Rates:
        """How often they may ask."""
        ...

    @property
    def hints(self) -> Hints:
        """What is known of Endpoints elsewhere."""
        ...

    @property
    def sessions(self) -> Sessions:
        """Who answered which conversation."""
        ...

    @property
    def answers(self) -> Answers:
        """Answers to be given again."""
        ...

    @property
    def tries(self) -> Tries:
        """How often somebody tried to sign in."""
        ...

    def status(self) -> StoreStatus:
        """How it is doing. Costs nothing."""
        ...

    async def start(self) -> None:
        """Begin. Comes back at once, also where whoever keeps the state is away: that is tried again behind."""
        ...

    async def aclose(self) -> None:
        """Deliver what is waiting, if that takes no longer than a moment, and stop."""
        ...
