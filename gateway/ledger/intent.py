"""What the journal holds of an Attempt before it is sent, and a price snapshot of what it is billed by: as decoded."""

from msgspec import Struct

from providers.base import Price, PriceOverride


class Priced(Struct, frozen=True):
    """What a price snapshot holds."""

    price: Price | None
    overrides: tuple[PriceOverride, ...]


class Intent(Struct, frozen=True, gc=False, array_like=True):
    """An Attempt that is about to be sent."""

    attempt_id: str
    """`<generation id>/<n>`, from 1."""
    unix_us: int
    key_id: str
    """The public id of the client key; empty where callers need none."""
    route: str
    model: str
    endpoint: str
    provider: str
    surface: str
    stream: bool
    price_id: str
    """Of the PriceSnapshot by which it is billed."""
    prompt_tokens: int
    """Our estimate, or exact count."""
    output_limit: int | None = None
    reserved_in_nusd: int = 0
    app: str = ""
    """The title that the application gives itself; as all texts of clients, cut to TEXT_MAX by whoever takes it."""
    referer: str = ""
    user: str = ""
    session: str = ""
    tags: tuple[str, ...] = ()
