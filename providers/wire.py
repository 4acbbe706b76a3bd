"""What a Dialect gives a Transport to carry."""

from collections.abc import Mapping
from typing import Literal

from msgspec import Struct


class Adaptation(Struct, frozen=True):
    """Something a client asked that the provider gets differently, or not at all. Told to the client and recorded."""

    param: str
    """The member of the client's request, as in `messages[0].content` or `seed`."""
    action: Literal["dropped", "clamped", "folded", "merged"]
    detail: str = ""
    """What became of it, for people."""


class WireRequest(Struct, frozen=True, kw_only=True):
    """One HTTP request (or its like) to a provider, complete but for credentials that a Signer adds."""

    url: str
    body: bytes
    headers: Mapping[str, str] = {}
    """Names in lower case. content-length and host are the Transport's business."""
    method: str = "POST"
    stream: bool = False
    """Whether the answer's bytes are wanted as they come; otherwise the first `read` gives the whole body."""
    adapted: tuple[Adaptation, ...] = ()
    """What of the client's request does not reach the provider as it was asked."""
    caller: str = ""
    """Whose request it is, as a name that says nothing else; filled for the local worker alone, whose queue is fair."""

    def under(self, headers: Mapping[str, str], caller: str = "") -> "WireRequest":
        """The same with these headers in place of its own, and by this caller."""
        return WireRequest(
            url=self.url,
            body=self.body,
            headers=headers,
            method=self.method,
            stream=self.stream,
            adapted=self.adapted,
            caller=caller or self.caller,
        )
