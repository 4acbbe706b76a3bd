"""OpenRouter's headers for answers that are given again, in and out.

https://openrouter.ai/docs/guides/features/response-caching. A Route's `cache` takes the place of its presets.
"""

from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from gateway.answer import Answer
from gateway.cache.store import TTL_MAX_S
from gateway.config.catalogue import Catalogue
from gateway.errors import InvalidRequestError
from gateway.reuse import TTL_S, CacheWish
from gateway.reused import AnyAnswer
from providers.messages import ChatRequest

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
WANTED: Final = b"x-openrouter-cache"
TTL: Final = b"x-openrouter-cache-ttl"
AFRESH: Final = b"x-openrouter-cache-clear"
_YES: Final = (b"true", b"1")
_NO: Final = (b"false", b"0")
_TTL_MAX_DIGITS: Final = 6
_NANO_PER_USD: Final = 10**9


class CacheWishes:
    """Says of each request whether its answer may be given again. Belongs to one event loop."""

    __slots__ = ("_catalogue", "_routes")

    def __init__(self) -> None:
        self._catalogue: Catalogue | None = None
        self._routes = False

    def read(self, fields: Mapping[bytes, bytes], request: ChatRequest, catalogue: Catalogue) -> CacheWish | None:
        """What the headers say, else the Route; None: neither wants it.

        Raises:
            InvalidRequestError: A header makes no sense.
        """
        if catalogue is not self._catalogue:
            self._catalogue = catalogue
            self._routes = any(route.cache_ttl_s is not None for route in catalogue.routes.values())
        wanted = fields.get(WANTED)
        if wanted is None and not self._routes:
            return None
        if wanted is not None and _flag(WANTED, wanted) is False:
            return None
        ttl_s = self._route_ttl_s(request, catalogue)
        if wanted is None and ttl_s is None:
            return None
        said, afresh = fields.get(TTL), fields.get(AFRESH)
        return CacheWish(
            ttl_s=_ttl_s(said) if said is not None else TTL_S if ttl_s is None else ttl_s,
            afresh=afresh is not None and _flag(AFRESH, afresh),
        )

    def _route_ttl_s(self, request: ChatRequest, catalogue: Catalogue) -> int | None:
        """By the Route that is asked first."""
        if not self._routes:
            return None
        name = request.model or (request.models[0] if request.models else "")
        route = catalogue.find_route(name)
        return None if route is None else route.cache_ttl_s


def cache_headers(answer: AnyAnswer) -> Headers:
    """How an answer came about, for its head; nothing to be said of one that was simply asked for."""
    if isinstance(answer, Answer):
        return ()
    given = answer.given
    headers = [
        (b"x-openrouter-cache-status", b"HIT" if given.again else b"MISS"),
        (b"x-openrouter-cache-ttl", b"%d" % given.ttl_s),
    ]
    if given.again:
        headers += [
            (b"x-openrouter-cache-age", b"%d" % given.age_s),
            (b"x-openrouter-cache-source-id", given.source_id.encode()),
        ]
        if given.saved_in_nusd is not None:
            headers.append((b"x-mixgate-saved", _usd(given.saved_in_nusd)))
    return headers


def _flag(name: bytes, value: bytes) -> bool:
    lower = value.strip().lower()
    if lower in _YES:
        return True
    if lower in _NO:
        return False
    raise InvalidRequestError(f"the header {name.decode()} is true or false", param=name.decode())


def _ttl_s(value: bytes) -> int:
    text = value.strip()
    ttl_s = int(text) if text.isdigit() and len(text) <= _TTL_MAX_DIGITS else 0
    if not 1 <= ttl_s <= TTL_MAX_S:
        raise InvalidRequestError(
            f"the header {TTL.decode()} is a number of seconds, 1 to {TTL_MAX_S}", param=TTL.decode()
        )
    return ttl_s


def _usd(amount_in_nusd: int) -> bytes:
    whole, rest = divmod(amount_in_nusd, _NANO_PER_USD)
    return f"{whole}.{rest:09d}".rstrip("0").rstrip(".").encode()
