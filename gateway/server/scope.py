"""ASGI's words, and what our server adds to the scope of a request."""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
SendWhole = Callable[[int, bytes, bytes], Awaitable[None]]
"""Status, header block, body: `Exchange.send_whole`."""
App = Callable[[Scope, Receive, Send], Awaitable[None]]

ON_DISCONNECT: Final = "mixgate.on_disconnect"
"""Give it a callable (or None) to be called once, from the event loop, if the client leaves first."""
FIELDS: Final = "mixgate.fields"
"""The headers as a dict of lower-case name to value, both bytes."""
HOST: Final = "mixgate.host"
"""The Host header's name, lower case, without port."""
SEND_WHOLE: Final = "mixgate.send_whole"
"""`Exchange.send_whole`, the cheap way to send an answer that is complete. `send` is as good."""
LOOPBACK: Final = "mixgate.loopback"
"""Whether the peer is this machine."""
