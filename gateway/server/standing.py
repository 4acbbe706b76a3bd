"""What follows from the head of a chat request alone: worked out once for all requests that begin with it."""

from gateway.attempts import Hints
from gateway.server.auth import Authenticator, Caller
from gateway.server.client_hints import Sender, read_hints

METADATA_HEADER = b"x-openrouter-metadata"


class Standing:
    """Who asks, and how. Holds for one head, as long as `door` is who lets in.

    Args:
        fields: Its headers.
        caller: Whoever the credential in them belongs to.
        door: Who has said so; None: ask again.
    """

    __slots__ = ("_hints", "_hints_of_streams", "caller", "door", "is_json", "key", "sender", "wants_metadata")

    def __init__(self, fields: dict[bytes, bytes], caller: Caller, door: Authenticator | None = None) -> None:
        self.caller = caller
        self.door = door
        self.key = caller.name if caller.is_key else None
        """By which requests at the same time are counted."""
        self.is_json = says_json(fields)
        self.wants_metadata = fields.get(METADATA_HEADER) == b"enabled"
        self.sender = Sender(fields)
        self._hints = read_hints(fields, stream=False)
        self._hints_of_streams = read_hints(fields, stream=True)

    def hints(self, *, stream: bool) -> Hints:
        """The client's own patience."""
        return self._hints_of_streams if stream else self._hints


def says_json(fields: dict[bytes, bytes]) -> bool:
    """Whether the body is said to be JSON: a web page cannot send such a request to another site unasked."""
    content_type = fields.get(b"content-type", b"")
    return content_type.partition(b";")[0].strip().lower() == b"application/json"
