"""Why an Endpoint is not among the Candidates. Read back from records, so not compiled."""

from msgspec import Struct


class Exclusion(Struct, frozen=True, gc=False):
    """An Endpoint that was not considered, and why. `code` is stable, `reason` is for people."""

    endpoint: str
    code: str
    reason: str
    wanted: int | None = None
    """The figure that was needed, in the unit of its code: tokens, pico-USD, nano-USD."""
    limit: int | None = None
    """The figure that the Endpoint has."""
