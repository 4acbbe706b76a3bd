"""The seams: what a Dialect, a Decoder and a Transport are, and the values that cross them.

A Dialect is pure: bytes in, values out. A Transport is the only thing that touches the network. Neither knows the
other; the engine carries a WireRequest from one and the response's bytes to the other.
"""

from collections.abc import Awaitable, Mapping
from datetime import date
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

from msgspec import Struct

from providers.errors import ProviderError
from providers.messages import ChatRequest, Event
from providers.quirks import Quirks
from providers.wire import Adaptation, WireRequest

__all__ = [
    "NO_HEADERS",
    "UNKNOWN_DATA_POLICY",
    "Adaptation",
    "Capabilities",
    "DataPolicy",
    "Decoder",
    "Dialect",
    "Endpoint",
    "EndpointState",
    "Price",
    "PriceOverride",
    "Signer",
    "Transport",
    "WireRequest",
    "WireResponse",
]

NO_HEADERS: Mapping[str, str] = MappingProxyType({})
EndpointState = Literal["live", "unverified", "retired"]


class Capabilities(Struct, frozen=True, gc=False):
    """What an Endpoint is known to do. Unknown counts as no, streaming apart."""

    streaming: bool = True
    system: bool = False
    tools: bool = False
    json_object: bool = False
    json_schema: bool = False
    prefill: bool = False
    logprobs: bool = False
    vision: bool = False
    reasoning: bool = False
    seed: bool = False
    multiple_choices: bool = False


class Price(Struct, frozen=True, gc=False):
    """What an Endpoint charges, in pico-USD (1e-12 USD) per token. `None`: nobody knows, which is not zero."""

    input_in_pusd: int | None = None
    output_in_pusd: int | None = None
    cache_read_in_pusd: int | None = None
    cache_write_in_pusd: int | None = None
    request_in_pusd: int | None = None
    image_in_pusd: int | None = None


class PriceOverride(Struct, frozen=True, kw_only=True):
    """Prices that hold instead of an Endpoint's own while every condition does. None: no such condition."""

    price: Price
    """Figures that are None here stay as they are without this override."""
    min_prompt_tokens: int | None = None
    """Holds for prompts of this many tokens and more; then for all of their tokens, not only those beyond."""
    utc_start: str | None = None
    """HH:MM. Where the start is not before the end, the time in between lies over midnight."""
    utc_end: str | None = None
    """HH:MM, the first minute in which it no longer holds."""
    from_day: date | None = None
    until_day: date | None = None
    """The last day on which it holds."""


class DataPolicy(Struct, frozen=True, gc=False):
    """What becomes of what is sent to an Endpoint. `None`: nobody knows, which is not no."""

    collects: bool | None = None
    """Whether it may be used for training, or be sold on."""
    retains: bool | None = None
    """Whether it is kept once the answer is complete."""


UNKNOWN_DATA_POLICY: Final = DataPolicy()


class Endpoint(Struct, frozen=True, kw_only=True):
    """One model at one provider at one URL with one price and one context size: the thing that is routed to."""

    id: str
    """`provider/model-id`, as in providers.yaml."""
    provider: str
    model: str
    """The public Model it serves."""
    upstream_model: str
    """The id that the provider knows."""
    base_url: str
    """Without a trailing slash. Empty for the local worker."""
    context_tokens: int | None = None
    max_output_tokens: int | None = None
    price: Price | None = None
    capabilities: Capabilities = Capabilities()
    quirks: Quirks = Quirks()
    state: EndpointState = "live"
    local: bool = False
    quantization: str | None = None
    """As OpenRouter spells them: fp8, bf16, int4, ..."""
    region: str | None = None
    """Where its provider runs it, in the provider's own word."""
    data: DataPolicy = UNKNOWN_DATA_POLICY
    distillable: bool | None = None
    """Whether its text may be trained on."""
    parameters: frozenset[str] | None = None
    """Members of a request that it honours, by their wire names (`providers.parameters`). None: nobody knows."""
    our_names: frozenset[str] = frozenset()
    """Names of this gateway's providers in lower case, where the Endpoint is a router with providers of its own."""
    description: str | None = None
    details: Mapping[str, Any] = {}
    """Facts for people: source, as_of, claims."""


class WireResponse(Protocol):
    """A provider's answer: its head, and its body as bytes when they come."""

    @property
    def status(self) -> int:
        """The HTTP status."""
        ...

    @property
    def headers(self) -> Mapping[str, str]:
        """Names in lower case; of repeated headers the last."""
        ...

    @property
    def body(self) -> bytes | None:
        """The whole body, where the request was not for a stream; then nothing is left to read."""
        ...

    def read(self) -> Awaitable[bytes]:
        """To be awaited at once: the next bytes of the body, `b""` once it is complete.

        Raises:
            ProviderError: TruncatedError when the connection broke first, GarbledError when a bound was passed.
        """
        ...

    def close(self, *, ended: bool = False) -> None:
        """Give the connection back (body read to its end) or drop it (anything else). Idempotent, never blocks.

        Args:
            ended: The answer was understood as complete, so the last bytes of its framing may still be let in.
        """
        ...


class Transport(Protocol):
    """Carries a WireRequest to a provider."""

    async def send(self, request: WireRequest, *, connect_timeout_s: float) -> WireResponse:
        """Send, and return once the head is here (stream) or the whole body (not stream).

        Cancelling drops the connection.

        Raises:
            ProviderError: ConnectError, TruncatedError or GarbledError.
        """
        ...

    async def aclose(self) -> None:
        """Drop every connection."""
        ...


class Signer(Protocol):
    """Adds credentials to a WireRequest, where a header that never changes is not enough."""

    async def sign(self, request: WireRequest, *, now_unix_s: float) -> WireRequest:
        """The request as it may go out. Refreshes credentials in a thread when they run out.

        Raises:
            ProviderError: CredentialsError when there are none.
        """
        ...


class Decoder(Protocol):
    """Turns the bytes of one 2xx answer, whole or in any pieces, into Events. Sans I/O."""

    skipped_chunks: int
    """Chunks that could not be read and were passed over: at most one, a second one fails the answer."""
    ended: bool
    """The provider said that this was all (`[DONE]`): no need to wait for the connection's own end."""

    def feed(self, data: bytes) -> list[Event]:
        """Events that these bytes complete. Never raises: a failure is an AnswerFailed, and then nothing follows."""
        ...

    def finish(self) -> list[Event]:
        """The body is complete. An answer without an end is an AnswerFailed, never a success."""
        ...


class Dialect(Protocol):
    """How a family of providers talks. Stateless and pure."""

    name: str

    def encode(self, request: ChatRequest, endpoint: Endpoint, *, stream: bool) -> WireRequest:
        """The provider's own request for what the client asked, without credentials.

        Raises:
            ProviderError: UnsupportedError where this family cannot say what was asked.
        """
        ...

    def decoder(self, endpoint: Endpoint, *, stream: bool, headers: Mapping[str, str] = NO_HEADERS) -> Decoder:
        """A fresh decoder for one answer. `headers` are the answer's, for providers that put usage there."""
        ...

    def error(self, status: int, headers: Mapping[str, str], body: bytes, *, now_unix_s: float) -> ProviderError:
        """What a non-2xx answer means. `now_unix_s` is the wall clock, for a Retry-After that is a date."""
        ...

    def authorize(self, api_key: str) -> Mapping[str, str]:
        """The headers that carry a provider key."""
        ...
