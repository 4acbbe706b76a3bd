"""The Transport for where the default one does not reach: a forward proxy, or TLS of an unusual kind.

Costs about 100 us more a request than providers/http_transport.py; chosen per provider with `transport: aiohttp`.
The import is paid only by those who choose it: building the first session takes the library in.
"""

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from providers.base import WireRequest
from providers.errors import ConnectError, GarbledError, ProviderError, TruncatedError
from providers.http_connection import BODY_MAX_BYTES, HEAD_MAX_BYTES, STREAM_MAX_BYTES

if TYPE_CHECKING:
    import aiohttp


class AiohttpTransport:
    """Carries requests with aiohttp, through `proxy` where one is given. Nothing is read from the environment."""

    def __init__(self, proxy: str | None = None) -> None:
        self._proxy = proxy
        self._session: aiohttp.ClientSession | None = None

    async def send(self, request: WireRequest, *, connect_timeout_s: float) -> "AiohttpResponse":
        """Send, and return once the head is here.

        Raises:
            ProviderError: ConnectError, TruncatedError or GarbledError.
        """
        import aiohttp  # noqa: PLC0415 (a tenth of a second at start-up for something that few configure)
        import yarl  # noqa: PLC0415 (comes with aiohttp)

        if self._session is None:
            self._session = aiohttp.ClientSession(
                auto_decompress=False,
                trust_env=False,
                max_line_size=HEAD_MAX_BYTES,
                max_field_size=HEAD_MAX_BYTES,
                timeout=aiohttp.ClientTimeout(total=None),
                connector=aiohttp.TCPConnector(limit=0),
                cookie_jar=aiohttp.DummyCookieJar(),
            )
        headers = {"accept-encoding": "identity", **request.headers}
        try:
            response = await self._session.request(
                request.method,
                yarl.URL(request.url, encoded=True),  # as it is: some signatures cover the path letter by letter
                data=request.body,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy,
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _translate(error) from error
        if response.headers.get("content-encoding", "identity") != "identity":
            response.close()
            raise GarbledError("the provider compressed its answer though asked not to")
        answer = AiohttpResponse(response, STREAM_MAX_BYTES if request.stream else BODY_MAX_BYTES)
        if not request.stream:
            await answer.read_whole()
        return answer

    async def aclose(self) -> None:
        """Drop every connection."""
        if self._session is not None:
            await self._session.close()


class AiohttpResponse:
    """One answer."""

    def __init__(self, response: "aiohttp.ClientResponse", max_bytes: int) -> None:
        self._response = response
        self._left_bytes = max_bytes
        self.status = response.status
        self.body: bytes | None = None
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in response.headers.items()}

    async def read(self) -> bytes:
        """The next bytes of the body, `b""` once it is complete."""
        try:
            data = await self._response.content.readany()
        except Exception as error:
            raise _translate(error) from error
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            self.close()
            raise GarbledError("the provider's answer is over the size limit")
        return data

    async def read_whole(self) -> None:
        """Read all of it into `body`."""
        parts: list[bytes] = []
        try:
            while data := await self.read():
                parts.append(data)
        except BaseException:
            self.close()
            raise
        self.body = b"".join(parts)

    def close(self, *, ended: bool = False) -> None:
        """Give the connection back, or drop it."""
        if ended:
            self._response.release()
        else:
            self._response.close()


def _translate(error: Exception) -> ProviderError:
    """Errors of aiohttp as ours; what is neither is a fault of our own and stays what it is.

    Raises:
        Exception: It is no error of the connection.
    """
    import aiohttp  # noqa: PLC0415 (as above; it is loaded by now)

    if isinstance(error, aiohttp.ClientPayloadError):
        return TruncatedError("the provider hung up in the middle of its answer")
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError | aiohttp.InvalidURL | OSError):
        return ConnectError(f"cannot connect to the provider: {error.__class__.__name__}")
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return ConnectError("the provider closed the connection before it answered")
    if isinstance(error, aiohttp.ClientError | asyncio.IncompleteReadError | ValueError):
        return GarbledError("the provider's answer is not HTTP")
    raise error
