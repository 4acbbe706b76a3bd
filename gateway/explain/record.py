"""The record that every request leaves, as it is stored: ids and numbers, never a word of a prompt, never a key."""

from datetime import datetime
from typing import Final, Literal

import msgspec
from msgspec import Struct

from gateway.attempts import Outcome, Why
from gateway.explain.errors import UnreadableRecordError
from gateway.observation import Observation
from gateway.routing.ask import Ask
from gateway.routing.candidate import Exclusion

Ending = Literal["ok", "failed", "cancelled"]


class Option(Struct, frozen=True, gc=False, omit_defaults=True):
    """An Endpoint that may serve, or might have, in the record of a Plan."""

    endpoint: str
    stage: int = 0
    expected_cost_in_pusd: int | None = None
    """Of this request; None: no price is known."""
    score: float | None = 0.0
    """What the policy ordered by; None where that is no number."""
    panic: bool = False


class Decision(Struct, frozen=True, gc=False, omit_defaults=True):
    """A Plan in ids and numbers: two Plans are the same where these are equal."""

    route: str
    policy: str
    candidates: tuple[Option, ...] = ()
    resting: tuple[Option, ...] = ()
    excluded: tuple[Exclusion, ...] = ()
    """Behind those that the static side has: who cannot be asked whatever a request says."""
    explicit: bool = False
    emulate: bool = True
    rescue: bool = True
    upcast: bool = False
    hedge: bool = False


class Tokens(Struct, frozen=True, gc=False, omit_defaults=True):
    """What was counted, by the provider or in its place. None: nobody said."""

    input: int | None = None
    output: int | None = None
    cached_input: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    estimated: bool = False
    """The provider hung up before it counted: these are our own estimates."""


class Tried(Struct, frozen=True, gc=False, omit_defaults=True):
    """One Attempt, once it is over."""

    number: int
    endpoint: str
    outcome: Outcome
    why: Why = "planned"
    code: str | None = None
    upstream_status: int | None = None
    started_ms: int = 0
    """After the decision."""
    ttft_ms: int | None = None
    """From its start to the first content."""
    duration_ms: int = 0
    tokens: Tokens | None = None
    reported_cost_in_nusd: int | None = None
    """What the provider says that it charged."""
    followed: bool = False
    emulated: tuple[str, ...] = ()
    adapted: tuple[str, ...] = ()
    """As in `seed dropped`."""


class Rescued(Struct, frozen=True, gc=False, omit_defaults=True):
    """The answer was cut, and went on elsewhere."""

    by: str
    """`prefill`: from the text so far. `again`: asked anew, and what was delivered dropped."""
    cut: str
    """The Endpoint whose answer broke off."""
    continued: str
    """The Endpoint that went on."""
    after_chars: int


class Cached(Struct, frozen=True, gc=False, omit_defaults=True):
    """The answer was made for another request, and nobody was asked for this one."""

    source: str
    """The generation id of that request."""
    age_s: int = 0
    """0 too where it was still on its way."""
    saved_in_nusd: int | None = None
    """What it cost then, all Attempts together; None: nobody knows, or it came to nothing."""


class Record(Struct, frozen=True, gc=False, omit_defaults=True):
    """What one request asked of routing, what was decided on which grounds, and what came of it."""

    id: str
    """The generation id, as in `x-generation-id`."""
    unix_s: float
    """The wall clock at the decision, to the millisecond."""
    requested: tuple[str, ...]
    """Names of models, as the client wrote them."""
    surface: str
    """The API by which it came."""
    outcome: Ending
    ask: Ask
    draw: float
    """The random number that the decision used, 0 to 1."""
    now_s: float
    """The monotonic clock at the decision; `until_s` of the observations is by the same clock."""
    table: str
    """Digest of the static side of the decision, which the store keeps once."""
    catalogue: str
    """Digest of providers.yaml."""
    decision: Decision
    attempts: tuple[Tried, ...] = ()
    observations: dict[str, Observation] = {}
    """By Endpoint. Whoever is missing had never been seen at work."""
    duration_ms: int = 0
    code: str | None = None
    """Why there is no answer, or no whole one."""
    caller: str | None = None
    """The name of the caller's key."""
    now_utc: datetime | None = None
    """The wall clock that prices were looked up by."""
    rescued: Rescued | None = None
    cost_in_nusd: int | None = None
    """Of all Attempts together, by our own prices."""
    cached: Cached | None = None
    """Whose answer was given again."""


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Record)


def encode(record: Record) -> bytes:
    """As one line of JSON."""
    return _encoder.encode(record)


def decode(data: bytes) -> Record:
    """The Record of a line of JSON.

    Raises:
        UnreadableRecordError: It is none, or one of a version with other fields.
    """
    try:
        return _decoder.decode(data)
    except msgspec.DecodeError as error:
        raise UnreadableRecordError(
            f"the record cannot be read: {error}; another version may have written it"
        ) from error
