"""What workers and the owner say to one another. They are on one machine, whose monotonic clock is the same for all."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias

import msgspec
from msgspec import Struct

from gateway.keys.budget import Offer
from gateway.keys.key import KeyRecord
from gateway.ledger.entry import Intent
from gateway.observation import MinuteRow
from gateway.sharing.base import Hint
from gateway.state.blocks import Packed
from gateway.state.cache_rows import CacheRow
from gateway.state.entries import PriceSnapshot
from gateway.state.writer import EndpointEvent

# --- who is there ---


class HeldAttempt(Struct, frozen=True, array_like=True):
    """An Attempt that is held and not settled."""

    attempt_id: str
    worst_in_nusd: int
    unix_s: float


class OpenLease(Struct, frozen=True, array_like=True):
    """A request that is under way, as its worker knows it."""

    lease_id: str
    key_id: str
    amount_in_nusd: int
    until_s: float
    """When it ends if nobody ends it."""
    closed: bool
    holds: tuple[HeldAttempt, ...]


class Hello(Struct, frozen=True, tag=True, array_like=True):
    """From a worker, first: who it is, and what it has reserved. Gets a Welcome."""

    name: str
    leases: tuple[OpenLease, ...] = ()
    running: tuple[tuple[str, int, int], ...] = ()
    """Requests that were let in: the key, the number, the tokens."""


class Welcome(Struct, frozen=True, array_like=True):
    """To a worker that said Hello. All keys were told before it."""

    owner: str
    """Of this owner and no other."""


class Written(Struct, frozen=True, tag=True, array_like=True):
    """From a worker: all that it had settled when it said Hello is in the store."""


# --- what is to be kept; on a connection of its own, each answered before the next is sent ---


class StoreHello(Struct, frozen=True, tag=True, array_like=True):
    """From a worker's store, first."""

    name: str


class Rows(Struct, frozen=True, tag=True, array_like=True):
    """Rows of the ledger. The answer comes once the disk has them."""

    rows: list[list[str | int | bool | None]]
    prices: list[PriceSnapshot]


class Records(Struct, frozen=True, tag=True, array_like=True):
    """Records of requests."""

    records: list[Packed]


class Minutes(Struct, frozen=True, tag=True, array_like=True):
    """What Endpoints did."""

    rows: list[MinuteRow]


class Events(Struct, frozen=True, tag=True, array_like=True):
    """Changes of Endpoints' standing."""

    events: list[EndpointEvent]


# --- what is shared ---


class Reserve(Struct, frozen=True, tag=True, array_like=True):
    """As `Budgets.reserve`."""

    lease_id: str
    key_id: str
    offers: tuple[Offer, ...]
    unix_s: float
    now_s: float
    total_s: float
    told: bool = False
    """Whether nobody waits for the answer, as the key has no budget."""


class Hold(Struct, frozen=True, tag=True, array_like=True):
    """As `Budgets.hold`. Without a number where it is covered for certain."""

    lease_id: str
    attempt_id: str
    worst_in_nusd: int
    unix_s: float


class Settle(Struct, frozen=True, tag=True, array_like=True):
    """As `Budgets.settle`."""

    lease_id: str
    attempt_id: str
    cost_in_nusd: int | None


class Release(Struct, frozen=True, tag=True, array_like=True):
    """As `Budgets.release`."""

    lease_id: str


class UsageAsked(Struct, frozen=True, tag=True, array_like=True):
    """As `Budgets.usage`."""

    key_ids: tuple[str, ...]
    unix_s: float


class Enter(Struct, frozen=True, tag=True, array_like=True):
    """As `Rates.enter`; `held` is the worker's number for the request."""

    held: int
    key_id: str
    tokens: int
    now_s: float


class Leave(Struct, frozen=True, tag=True, array_like=True):
    """As `Rates.leave`."""

    held: int
    tokens: int | None
    now_s: float


class AllowancesAsked(Struct, frozen=True, tag=True, array_like=True):
    """As `Rates.allowances`."""

    key_id: str
    now_s: float


class HintTold(Struct, frozen=True, tag=True, array_like=True):
    """To the owner, and by it to the others."""

    hint: Hint


class SessionAsked(Struct, frozen=True, tag=True, array_like=True):
    """As `Sessions.find`."""

    session: str
    unix_s: float


class SessionTold(Struct, frozen=True, tag=True, array_like=True):
    """As `Sessions.remember`."""

    session: str
    endpoint_id: str
    unix_s: float


class AnswerAsked(Struct, frozen=True, tag=True, array_like=True):
    """As `Answers.get`."""

    tenant: str
    digest: str
    unix_s: float


class AnswerTold(Struct, frozen=True, tag=True, array_like=True):
    """As `Answers.put`; without data, as `Answers.drop`."""

    tenant: str
    digest: str
    data: bytes | None
    ttl_s: float
    unix_s: float


class TryAsked(Struct, frozen=True, tag=True, array_like=True):
    """As `Tries.count`."""

    name: str
    now_s: float


class KeyChanged(Struct, frozen=True, tag=True, array_like=True):
    """To the owner: a key was changed; answered once every process has it. By the owner: this is how it is now."""

    record: KeyRecord
    before_us: int | None = None
    """When the record that it was made from was changed last; None: there was none."""


class CacheSaved(Struct, frozen=True, tag=True, array_like=True):
    """What giving answers again has saved."""

    rows: tuple[CacheRow, ...]


class FiguresAsked(Struct, frozen=True, tag=True, array_like=True):
    """To the owner: the figures of all workers. By the owner: yours."""


class Figures(Struct, frozen=True, array_like=True):
    """A worker's figures, as its metrics have them."""

    name: str
    pid: int
    rows: msgspec.Raw


class LiveAsked(Struct, frozen=True, tag=True, array_like=True):
    """To the owner: what all workers are at now. By the owner: what you are at."""


Live: TypeAlias = tuple[int, Sequence[tuple[Intent, int]]]
"""How many requests are being answered; and Attempts on their way, with tokens that have come of each."""
LIVE_MAX: Final = 500
"""Attempts that one worker tells of, the oldest."""

# --- local models ---


class LocalAsked(Struct, frozen=True, tag=True, array_like=True):
    """A request to a model on this machine, by a number of the worker's. LocalHead and LocalPiece follow."""

    exchange: int
    url: str
    body: bytes
    stream: bool
    caller: str


class LocalDropped(Struct, frozen=True, tag=True, array_like=True):
    """Nobody wants the rest."""

    exchange: int


class LocalHead(Struct, frozen=True, tag=True, array_like=True):
    """An answer begins."""

    exchange: int
    status: int
    headers: Mapping[str, str]


class LocalPiece(Struct, frozen=True, tag=True, array_like=True):
    """More of it; empty: that was all."""

    exchange: int
    data: bytes


class LocalModels(Struct, frozen=True, tag=True, array_like=True):
    """How the local models are: each as its members."""

    models: tuple[Mapping[str, Any], ...]


# --- answers ---


class Reply(Struct, frozen=True, tag=True, array_like=True):
    """To what had a number."""

    value: msgspec.Raw
    error: str | None = None
    """Why there is none: a word for the kind, a colon, words for people."""
    retry_after_s: float | None = None


Message: TypeAlias = (
    Hello
    | Written
    | StoreHello
    | Rows
    | Records
    | Minutes
    | Events
    | Reserve
    | Hold
    | Settle
    | Release
    | UsageAsked
    | Enter
    | Leave
    | AllowancesAsked
    | HintTold
    | SessionAsked
    | SessionTold
    | AnswerAsked
    | AnswerTold
    | TryAsked
    | KeyChanged
    | CacheSaved
    | FiguresAsked
    | LiveAsked
    | LocalAsked
    | LocalDropped
    | LocalHead
    | LocalPiece
    | LocalModels
    | Reply
)

encode: Final = msgspec.msgpack.Encoder().encode
decode: Final = msgspec.msgpack.Decoder(Message).decode
NO_VALUE: Final = msgspec.Raw(encode(None))
