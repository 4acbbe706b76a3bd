"""What of a request an Endpoint would not get as asked, for `provider.require_parameters`. Pure, as dialects are.

What an Endpoint is known to take is in the configuration; what its dialect has no words for only the dialect knows.
"""

import re
from collections.abc import Callable, Iterable
from typing import Final, TypeAlias

from providers.base import Dialect, Endpoint
from providers.emulation import emulate
from providers.errors import ProviderError
from providers.messages import ChatRequest

LOST_MAX: Final = 8
"""Members named of one Endpoint."""

Losses: TypeAlias = tuple[tuple[str, tuple[str, ...]], ...]
"""Endpoint ids, each with the members of the request that would be dropped or clamped there."""

_NAME: Final = re.compile(r"[A-Za-z0-9_.\[\]-]{1,64}")
_UNNAMED: Final = "a member of another name"
"""Instead of names that a client may have put anything into."""
_LOST: Final = frozenset({"dropped", "clamped"})


def find_losses(
    request: ChatRequest,
    endpoints: Iterable[Endpoint],
    dialect_of: Callable[[Endpoint], Dialect],
    *,
    emulating: bool,
) -> Losses:
    """The Endpoints that would not get all that is asked, and what they would not get.

    Args:
        request: What is asked.
        endpoints: Whoever could answer.
        dialect_of: The dialect that an Endpoint is spoken to in.
        emulating: Whether tools and JSON are asked for in words where an Endpoint lacks them.
    """
    found = ((one.id, _lost(request, one, dialect_of(one), emulating=emulating)) for one in endpoints)
    return tuple((name, lost) for name, lost in found if lost)


def _lost(request: ChatRequest, endpoint: Endpoint, dialect: Dialect, *, emulating: bool) -> tuple[str, ...]:
    emulation = emulate(request, endpoint.capabilities) if emulating else None
    asked = request if emulation is None else emulation.request
    try:
        adapted = dialect.encode(asked, endpoint, stream=bool(request.stream)).adapted
    except ProviderError as error:
        return (_shown(error.param or "the request"),)
    names = dict.fromkeys(_shown(one.param) for one in adapted if one.action in _LOST)
    return tuple(names)[:LOST_MAX]


def _shown(name: str) -> str:
    return name if name == "the request" or _NAME.fullmatch(name) else _UNNAMED
