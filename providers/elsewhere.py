"""Whether a URL that a provider hands us may be followed. Pure, and closed unless the configuration opens it.

Some providers leave an answer in a storage bucket and answer with its URL. Followed blindly, such a URL would let
whoever answers for a provider send this gateway anywhere in the operator's network.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from providers.base import Endpoint

URL_MAX_CHARS: Final = 8192

_SOUND = re.compile(r"https?://[!-\[\]-~]+", re.IGNORECASE)
"""Visible ASCII without a backslash: nothing that two parsers read differently, nothing that ends a request line."""
_PORTS = {"http": 80, "https": 443}


def may_follow(url: str, endpoint: Endpoint) -> bool:
    """Whether `url` lies at the Endpoint's own origin, or at one of its `quirks.answer_origins`.

    An origin is scheme, host and port together, compared exactly: https elsewhere does not open http, nor a name the
    names under it.
    """
    if len(url) > URL_MAX_CHARS or _SOUND.fullmatch(url) is None:
        return False
    origin = _origin(url)
    known = (endpoint.base_url, *endpoint.quirks.answer_origins)
    return origin is not None and origin in map(_origin, known)


def _origin(url: str) -> tuple[str, str, int] | None:
    """Scheme, host and port; None where there is a user name, or no host."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return None
    host = parts.hostname
    if not host or "@" in parts.netloc or parts.scheme not in _PORTS:
        return None
    return parts.scheme, host, _PORTS[parts.scheme] if port is None else port
