"""Asks a vendor for its list of models: bounded, patient, and nobody but the configured host."""

import time
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import quote, urljoin, urlsplit

import httpx
import tenacity

from gateway.imports.draft import ImportSourceError
from gateway.imports.openrouter_models import Behind, Listing, read_endpoints, read_listing

BODY_MAX_BYTES: Final = 32 * 1024 * 1024
"""One answer of a vendor that is asked for its list."""
CONNECT_TIMEOUT_S: Final = 5.0
READ_TIMEOUT_S: Final = 30.0
BODY_TIMEOUT_S: Final = 120.0
"""For all of one answer, however steadily it drips."""
TRIES_MAX: Final = 3
"""Of one question, where the failure may pass."""
BACKOFF_S: Final = 0.5
PAGES_MAX: Final = 50
"""Of a list that comes in pages."""


class _PassingError(Exception):
    """A failure that the next try may not have."""


class Catalogue:
    """A vendor's published list.

    Args:
        base_url: The provider's, without a trailing slash.
        api_key: Sent to that host and no other. None: the list is public.
        proxy: URL of a forward proxy.
        wait: How tenacity waits between tries; for tests.
        transport: Instead of the network; for tests.
    """

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        proxy: str | None = None,
        wait: Any = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._base_url = base_url
        self._wait = wait or tenacity.wait_exponential_jitter(multiplier=BACKOFF_S, max=8.0)
        # Identity, or a small body could become a large one on its way through a decompressor.
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        if api_key is not None:
            headers["authorization"] = f"Bearer {api_key}"
        self._client = httpx.Client(
            headers=headers,
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            follow_redirects=False,
            trust_env=False,
            proxy=proxy,
            transport=transport,
        )

    def close(self) -> None:
        """Drop the connection."""
        self._client.close()

    def list_models(self, tell: Callable[[str], None]) -> Listing:
        """Every model that is offered.

        Args:
            tell: Takes a sentence about what was left out.

        Raises:
            ImportSourceError: It cannot be had.
        """
        url = f"{self._base_url}/models"
        found: dict[str, Any] = {}
        for _ in range(PAGES_MAX):
            page = read_listing(self._get(url))
            found |= page.models
            if page.next_url is None:
                return Listing(found, None)
            following = urljoin(url, page.next_url)
            if not _same_place(following, self._base_url):
                tell("the list goes on at another host, which is not asked")
                return Listing(found, None)
            url = following
        tell(f"the list has more than {PAGES_MAX} pages; the rest is left out")
        return Listing(found, None)

    def list_endpoints(self, model: str) -> Behind | None:
        """What stands behind a model; None where the vendor does not know it.

        Raises:
            ImportSourceError: It cannot be had.
        """
        path = "/".join(quote(part, safe=":@") for part in model.split("/") if part not in {"", ".", ".."})
        text = self._get(f"{self._base_url}/models/{path}/endpoints", missing_ok=True)
        return read_endpoints(text) if text else None

    def read_activity(self) -> bytes:
        """What the vendor charged on the last days, as JSON. It wants a management key for that.

        Raises:
            ImportSourceError: It cannot be had.
        """
        return self._get(f"{self._base_url}/activity")

    def _get(self, url: str, *, missing_ok: bool = False) -> bytes:
        patiently = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(_PassingError),
            stop=tenacity.stop_after_attempt(TRIES_MAX),
            wait=self._wait,
            reraise=True,
        )
        try:
            return patiently(self._get_once, url, missing_ok=missing_ok)
        except _PassingError as error:
            raise ImportSourceError(f"{_place(url)} cannot be had: {error}", "try again later") from error

    def _get_once(self, url: str, *, missing_ok: bool) -> bytes:
        try:
            with self._client.stream("GET", url) as response:
                self._judge(response, url, missing_ok=missing_ok)
                return b"" if response.status_code == 404 else _read(response, url)
        except httpx.HTTPError as error:
            raise _PassingError(type(error).__name__) from error

    def _judge(self, response: httpx.Response, url: str, *, missing_ok: bool) -> None:
        status = response.status_code
        if status == 429 or status >= 500:
            raise _PassingError(f"HTTP {status}")
        if status == 200 or (status == 404 and missing_ok):
            return
        if 300 <= status < 400:
            raise ImportSourceError(f"{_place(url)} leads elsewhere (HTTP {status})", "correct base_url: no redirects")
        fix = "check the provider key" if status in {401, 403} else "check the provider's base_url"
        raise ImportSourceError(f"{_place(url)} answered HTTP {status}", fix)


def _read(response: httpx.Response, url: str) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise ImportSourceError(f"{_place(url)} compressed its answer though asked not to", "check what is in between")
    parts: list[bytes] = []
    size_bytes = 0
    until_s = time.monotonic() + BODY_TIMEOUT_S
    for part in response.iter_raw():
        size_bytes += len(part)
        if time.monotonic() > until_s:
            raise _PassingError(f"not all of it came within {BODY_TIMEOUT_S:g} s")
        if size_bytes > BODY_MAX_BYTES:
            raise ImportSourceError(f"{_place(url)} answered more than {BODY_MAX_BYTES} bytes", "check base_url")
        parts.append(part)
    return b"".join(parts)


def _same_place(url: str, base_url: str) -> bool:
    try:
        origins = {(parts.scheme, parts.hostname, parts.port) for parts in map(urlsplit, (url, base_url))}
        anonymous = "@" not in urlsplit(url).netloc
    except ValueError:
        return False
    return len(origins) == 1 and anonymous


def _place(url: str) -> str:
    """Host and path: a query may hold what is nobody's business."""
    parts = urlsplit(url)
    return f"{parts.hostname}{parts.path}"
