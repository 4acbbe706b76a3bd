"""All that requests may be routed to. A reload makes a new one; running requests keep theirs."""

from collections.abc import Mapping

from msgspec import Struct

from gateway.config.catalogue import Catalogue
from gateway.upstream import Upstream


class Fleet(Struct, frozen=True):
    """The configured Endpoints, how each is reached, and which cannot answer now."""

    catalogue: Catalogue
    upstreams: Mapping[str, Upstream]
    """By Endpoint id."""
    off: Mapping[str, str]
    """Endpoints that cannot answer now, by id, and why. The same object as long as the same facts hold."""
