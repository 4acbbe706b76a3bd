"""The paths of keys: who may come there, and which of the desk's answers is given."""

from collections.abc import Awaitable
from typing import Any, Final
from urllib.parse import parse_qsl

from gateway.errors import InvalidRequestError, KeysUnavailableError, PayloadTooLargeError
from gateway.server.admin import KeyDesk
from gateway.server.asgi import CALLER, Place, require_json, send_json
from gateway.server.auth import Caller
from gateway.server.key_members import BODY_MAX_BYTES
from gateway.server.scope import Receive, Scope, Send
from gateway.state.errors import StoreError

KEYS_PATH: Final = "/api/v1/keys"
KEY_PATH: Final = "/api/v1/key"
ROTATE: Final = "/rotate"
NAME_MAX_CHARS: Final = 64
"""A hash, or a public id."""
QUERY_FIELDS_MAX: Final = 16
_CREATED: Final = 201
RETRY_AFTER_S: Final = 5.0
_NO_STORE: Final = (b"cache-control", b"no-store")


class KeyRoutes:
    """`/api/v1/key`, and `/api/v1/keys` with what is below it."""

    def __init__(self, desk: KeyDesk) -> None:
        self._desk = desk
        self._own_place: Place = ("ask", {"GET": self._own})
        self._keys_place: Place = ("administer", {"GET": self._list, "POST": self._create})
        self._key_place: Place = ("administer", {"GET": self._get, "PATCH": self._change, "DELETE": self._delete})
        self._rotate_place: Place = ("administer", {"POST": self._rotate})

    def find(self, path: str) -> Place | None:
        """Who may come there, and what answers."""
        if path == KEY_PATH:
            return self._own_place
        if path == KEYS_PATH:
            return self._keys_place
        if not path.startswith(KEYS_PATH + "/"):
            return None
        name = _name(path)
        if not name.isalnum() or len(name) > NAME_MAX_CHARS:
            return None
        return self._rotate_place if path.endswith(ROTATE) else self._key_place

    async def _own(self, scope: Scope, _receive: Receive, send: Send) -> None:
        caller: Caller = scope[CALLER]
        await self._desk.look()
        await send_json(send, self._desk.own(caller.key_id))

    async def _list(self, scope: Scope, _receive: Receive, send: Send) -> None:
        query: bytes = scope["query_string"]
        try:
            asked = dict(parse_qsl(query.decode("latin-1"), max_num_fields=QUERY_FIELDS_MAX))
        except ValueError as error:
            raise InvalidRequestError(f"the query has more than {QUERY_FIELDS_MAX} fields") from error
        await self._desk.look()
        await send_json(send, self._desk.list_keys(asked))

    async def _create(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(scope, receive)
        await send_json(send, await _written(self._desk.create(body)), _CREATED, (_NO_STORE,))

    async def _get(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await self._desk.look()
        await send_json(send, self._desk.get(_name(scope["path"])))

    async def _change(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(scope, receive)
        await send_json(send, await _written(self._desk.change(_name(scope["path"]), body)))

    async def _rotate(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = await _read(scope, receive)
        await send_json(send, await _written(self._desk.rotate(_name(scope["path"]), body)), 200, (_NO_STORE,))

    async def _delete(self, scope: Scope, _receive: Receive, send: Send) -> None:
        await send_json(send, await _written(self._desk.delete(_name(scope["path"]))))


async def _written(change: Awaitable[dict[str, Any]]) -> dict[str, Any]:
    """What came of a change.

    Raises:
        KeysUnavailableError: It could not be written, so nothing has changed.
    """
    try:
        return await change
    except StoreError as error:
        raise KeysUnavailableError(f"nothing has changed: {error}", retry_after_s=RETRY_AFTER_S) from error


def _name(path: str) -> str:
    return path[len(KEYS_PATH) + 1 :].removesuffix(ROTATE)


async def _read(scope: Scope, receive: Receive) -> bytes:
    """The body of a change.

    Raises:
        InvalidRequestError: It is not said to be JSON.
        PayloadTooLargeError: It is larger than any of them.
    """
    require_json(scope)
    body = b""
    while True:
        message = await receive()
        piece: bytes = message.get("body", b"")
        body += piece
        if len(body) > BODY_MAX_BYTES:
            raise PayloadTooLargeError(f"the body has more than {BODY_MAX_BYTES} bytes")
        if not message.get("more_body"):
            return body
