"""The record that every request leaves: ids and numbers, never a word of a prompt, never a key.

It is stored as an array of its values, which `gateway.explain.trace` makes: names are for whoever looks at it.
"""

from datetime import datetime
from typing import Any, Final, Literal, TypeVar

import msgspec
from msgspec import Struct
from msgspec.structs import fields

from gateway.attempts import Outcome, Why
from gateway.explain.errors import UnreadableRecordError
from gateway.observation import Observation
from gateway.routing.ask import Ask
from gateway.routing.exclusion import Exclusion

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


_AnyStruct = TypeVar("_AnyStruct", bound=Struct)
ESCAPES: Final = ((b"\xc1", b"\xc1\x00"), (b"\n", b"\xc1\x01"))
"""What is stored has no line breaks. 0xC1 stands for nothing in MessagePack, and in no text: only numbers have it."""


def _bare(kind: type[Struct], **types: Any) -> type[Struct]:
    """The same fields in the same order, without their names: as they are stored."""
    default: Any = msgspec.field  # of what has none, both are missing
    return msgspec.defstruct(
        kind.__name__,
        [
            (
                one.name,
                types.get(one.name, one.type),
                default(default=one.default, default_factory=one.default_factory),
            )
            for one in fields(kind)
        ],
        array_like=True,
    )


_BareOption: Any = _bare(Option)
_BareTried: Any = _bare(Tried, tokens=_bare(Tokens) | None)
_BareDecision: Any = _bare(Decision, candidates=tuple[_BareOption, ...], resting=tuple[_BareOption, ...])
_BareRecord: Any = _bare(Record, decision=_BareDecision, attempts=tuple[_BareTried, ...])

_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Record)
_bare_decoder: Final = msgspec.msgpack.Decoder(_BareRecord)


def encode(record: Record) -> bytes:
    """As one line of JSON, as people and other programs get it."""
    return _encoder.encode(record)


def decode(data: bytes) -> Record:
    """The Record that was stored: its values alone, or JSON, as earlier versions did.

    Raises:
        UnreadableRecordError: It is none, or one of a version with other fields.
    """
    try:
        if data.startswith(b"{"):
            return _decoder.decode(data)
        for byte, escaped in reversed(ESCAPES):
            data = data.replace(escaped, byte)
        return msgspec.convert(_bare_decoder.decode(data), Record, from_attributes=True)
    except msgspec.DecodeError as error:
        raise UnreadableRecordError(
            f"the record cannot be read: {error}; another version may have written it"
        ) from error


def record_of_values(values: tuple[Any, ...]) -> Record:
    """The Record of its values, in the order of the fields, and so on in each of its parts."""
    return _named(values, _BareRecord, Record)


def decision_of_values(values: tuple[Any, ...]) -> Decision:
    """The Decision of its values, in the order of the fields, and so on in each of its parts."""
    return _named(values, _BareDecision, Decision)


def _named(values: tuple[Any, ...], bare: Any, kind: type[_AnyStruct]) -> _AnyStruct:
    return msgspec.convert(msgspec.convert(values, bare, from_attributes=True), kind, from_attributes=True)
