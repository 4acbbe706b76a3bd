"""What makes two requests the same: everything that may change the answer, in one digest. Pure."""

from hashlib import sha256
from typing import Any, Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from providers.messages import ChatRequest

FORM: Final = 1
"""Counts up whenever other things go into a digest, so that answers of an older version are not found any more."""

# Members of objects have no order; members of our own structs have a fixed one.
_encode: Final = msgspec.json.Encoder(order="deterministic").encode


class Asked(Struct, frozen=True, gc=False):
    """One request, as far as its answer depends on it."""

    tenant: str
    """Whose request it is. Nobody is ever given another's answer."""
    routes: tuple[str, ...]
    """Names of the Routes that its models stand for, in order."""
    suffix: str | None
    """As in `:floor`, where the name that was asked for had one."""
    catalogue: str
    """Digest of providers.yaml."""
    grants: Any
    """What the client key may use."""
    request: ChatRequest


def digest_of(asked: Asked) -> str | None:
    """The digest, 64 hexadecimal digits; None where a request cannot be written down exactly, so never comes twice.

    How the answer is delivered does not count: `stream`, `stream_options`, and by which of its names a Route was asked.
    """
    bare = replace(asked.request, model="", models=None, stream=None, stream_options=None)
    try:
        text = _encode((FORM, replace(asked, request=bare)))
    except (OverflowError, UnicodeEncodeError, TypeError, RecursionError):
        return None
    return sha256(text).hexdigest()
