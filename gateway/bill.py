"""What one request costs: an entry in the ledger for each of its Attempts, begun before it is sent and settled once."""

from collections.abc import Callable
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from gateway.attempts import NOTED_PIECES, Attempt
from gateway.config.catalogue import Catalogue
from gateway.errors import UnaffordableError
from gateway.ledger.books import Books
from gateway.ledger.costs import Ending, Tariff, tariff_of
from gateway.payment import Payment
from gateway.sharing.base import Later
from providers.errors import ConnectError, ProviderError

US_PER_S: Final = 1_000_000
ERROR_STATUS_MIN: Final = 400


class Origin(Struct, frozen=True, gc=False, kw_only=True):
    """Where a request comes from, for its record and the ledger."""

    caller: str = "local"
    """Whose request it is, by name."""
    key_id: str = ""
    """The public id of the client key, where it was issued here."""
    surface: str = ""
    """The API by which it came."""
    generation_id: str = ""
    app: str = ""
    """The title that the application gives itself."""
    referer: str = ""
    user: str = ""
    session: str = ""
    tags: tuple[str, ...] = ()
    traceparent: str = ""
    """The header by which the client's own trace goes on here."""


class Tariffs:
    """What each Endpoint is billed by, worked out once per configuration."""

    __slots__ = ("_catalogue", "_known")

    def __init__(self) -> None:
        self._catalogue: Catalogue | None = None
        self._known: dict[str, Tariff] = {}

    def of(self, endpoint_id: str, catalogue: Catalogue) -> Tariff:
        """The Tariff of an Endpoint."""
        if catalogue is not self._catalogue:
            self._catalogue = catalogue
            self._known = {}
        tariff = self._known.get(endpoint_id)
        if tariff is None:
            endpoint = catalogue.endpoints[endpoint_id]
            overrides = catalogue.price_overrides.get(endpoint_id, ())
            tariff = self._known[endpoint_id] = tariff_of(endpoint_id, endpoint.price, overrides)
        return tariff


class Bill(Struct):
    """The entries of one request."""

    books: Books
    tariffs: Tariffs
    catalogue: Catalogue
    origin: Origin
    route: str
    stream: bool
    prompt_tokens: int
    output_limit: int | None
    images: int
    unix_time_s: Callable[[], float]
    payment: Payment | None = None
    """What an issued key pays with."""
    named: int = 0
    """The Attempt whose id is in `name`."""
    name: str = ""

    def begin(self, attempt: Attempt) -> "UnaffordableError | BegunLater | None":
        """An Attempt is about to be sent; the error says why it must not be, or its `answer` will."""
        payment, now_us = self.payment, self._now_us()
        if payment is not None:
            refused = payment.hold(self._id(attempt), attempt.endpoint.id, now_us / US_PER_S)
            if refused is not None:
                if isinstance(refused, Later):
                    return BegunLater(self, attempt, refused, now_us)
                return UnaffordableError(refused.message, retry_after_s=refused.retry_after_s)
        self.write(attempt, now_us)
        return None

    def write(self, attempt: Attempt, now_us: int) -> None:
        """Write down that it is sent now."""
        origin, endpoint, payment = self.origin, attempt.endpoint, self.payment
        endpoint_id = endpoint.id
        tariff = self.tariffs.of(endpoint_id, self.catalogue)
        head = (
            self._id(attempt),
            now_us,
            origin.key_id,
            self.route,
            endpoint.model,
            endpoint_id,
            endpoint.provider,
            origin.surface,
            self.stream,
            tariff.price_id,
            self.prompt_tokens,
            self.output_limit if payment is None else payment.longest.get(endpoint_id, self.output_limit),
            0 if payment is None else payment.worst.get(endpoint_id, 0),
            origin.app,
            origin.referer,
            origin.user,
            origin.session,
        )
        self.books.begin(head, origin.tags, tariff)

    def end(self, attempt: Attempt, error: ProviderError | None) -> None:
        """It is over: what it cost is noted on it."""
        if error is not None and isinstance(error, UnaffordableError):
            return  # it was never sent
        usage, ttft_s, output_tokens = attempt.usage, attempt.ttft_s, attempt.output_seen
        if usage is not None and not attempt.counted:
            # Of an answer that was cut, what the provider had said so far holds for the prompt, and not for the rest.
            output_tokens = max(output_tokens, usage.output_tokens or 0)
            usage = replace(usage, output_tokens=None, cost_in_nusd=None)
        outcome, attempt_id = attempt.outcome, self._id(attempt)
        ending = Ending(
            unix_us=self._now_us(),
            outcome="failed" if outcome == "running" else outcome,
            code=attempt.code,
            usage=usage,
            prompt_tokens=self.prompt_tokens,
            output_tokens=output_tokens,
            refused=_was_refused(attempt, error),
            images=self.images,
            ttft_ms=None if ttft_s is None else int(ttft_s * 1000 + 0.5),
            duration_ms=int(attempt.duration_s * 1000 + 0.5),
            upstream_id=attempt.upstream_id or (None if error is None else error.request_id),
        )
        settlement = self.books.end(attempt_id, ending)
        if settlement is not None:
            attempt.cost_in_nusd = settlement.cost_in_nusd
            attempt.cost_source = settlement.cost_source
            if self.payment is not None:
                self.payment.settle(attempt_id, settlement.cost_in_nusd)

    def note(self, attempt: Attempt) -> None:
        """How far it is, for whoever finds that the gateway was killed in the middle of it."""
        attempt.noted_next = attempt.pieces + NOTED_PIECES
        self.books.checkpoint(self._id(attempt), attempt.output_seen)

    def _id(self, attempt: Attempt) -> str:
        if attempt.number != self.named:
            self.named = attempt.number
            self.name = f"{self.origin.generation_id}/{attempt.number}"
        return self.name

    def _now_us(self) -> int:
        return int(self.unix_time_s() * US_PER_S)


class BegunLater(Struct, frozen=True):
    """An Attempt that may be sent once somebody else has said so."""

    bill: Bill
    attempt: Attempt
    later: Later
    now_us: int

    async def answer(self) -> UnaffordableError | None:
        """Ask; the error says why it must not be sent."""
        payment = self.bill.payment
        assert payment is not None  # noqa: S101 (who else would have to be asked)
        refused = await payment.answer_later(self.later, self.now_us / US_PER_S)
        if refused is not None:
            return UnaffordableError(refused.message, retry_after_s=refused.retry_after_s)
        self.bill.write(self.attempt, self.now_us)
        return None


def _was_refused(attempt: Attempt, error: ProviderError | None) -> bool:
    """Whether nobody charges for it: it reached nobody, or was answered with an error before any content."""
    if not attempt.sent:
        return True
    if error is None:
        return False
    if isinstance(error, ConnectError) and not attempt.followed:
        return True
    if attempt.pieces:
        return False
    status = error.upstream_status or attempt.upstream_status  # the first may be said in an answer that began well
    return status is not None and status >= ERROR_STATUS_MIN
