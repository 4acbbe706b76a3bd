"""Ask a model hub (huggingface.co or one that speaks its API) what is in a repository, and open its files.

Two calls: `GET /api/models/{repo}/revision/{revision}?blobs=true` for names, sizes and checksums, and
`GET /{repo}/resolve/{commit}/{path}` for bytes, which the hub answers with a redirect to its storage. A redirect is
followed only by https and only to the hub's own hosts, and the token goes to the endpoint alone.
(https://huggingface.co/docs/hub/api)
"""

import ipaddress
import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import PurePosixPath
from types import TracebackType
from typing import Final, Self
from urllib.parse import quote

import httpx
import msgspec

from local_backend.file_errors import NotOnHubError, PullError

DEFAULT_ENDPOINT: Final = "https://huggingface.co"
STORAGE_DOMAINS: Final = ("huggingface.co", "hf.co")
"""Where the hub keeps bytes: these hosts and those below them."""
METADATA_MAX_BYTES: Final = 16 << 20
FILES_MAX: Final = 10_000
FILE_MAX_BYTES: Final = 1 << 43
REDIRECTS_MAX: Final = 5
CONNECT_TIMEOUT_S: Final = 10.0
READ_TIMEOUT_S: Final = 30.0
"""Silence for so long means that the connection is dead; the download goes on over a new one."""
RETRY_AFTER_MAX_S: Final = 60.0
_REPOSITORY: Final = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_COMMIT: Final = re.compile(r"[0-9a-f]{7,64}")
_PART: Final = re.compile(r"-\d{5}-of-(\d{5})\.gguf$")
_QUANTISATION: Final = re.compile(
    r"(?:^|[-._/])((?:I?Q\d[A-Z0-9_]*|TQ\d_\d|BF16|F16|F32|FP16|MXFP4[A-Z_]*))(?=[-./]|$)", re.IGNORECASE
)


class TransientHubError(PullError):
    """The hub or the way to it failed in a way that may pass."""

    def __init__(self, message: str, retry_after_s: float = 0.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class HubFile:
    """One file of a repository."""

    path: str
    """Inside the repository."""
    size_bytes: int
    sha256: str

    @property
    def name(self) -> str:
        """What it is called on disk."""
        return PurePosixPath(self.path).name


@dataclass(frozen=True, slots=True)
class Selection:
    """The files of one quantisation, in order, all of one commit."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]


class Hub:
    """One endpoint of a hub. An async context manager; the token is never printed and never leaves the endpoint."""

    def __init__(self, endpoint: str, token: str | None) -> None:
        self._endpoint = httpx.URL(endpoint.rstrip("/"))
        if not self._endpoint.host or (self._endpoint.scheme != "https" and not is_loopback(self._endpoint)):
            raise PullError(f"HF_ENDPOINT {endpoint!r} is not an https URL")
        self._token = token
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            # Compression would break ranges and checksums.
            headers={"accept-encoding": "identity", "user-agent": "mixgate"},
            # A proxy of the environment has no business between us and this machine.
            trust_env=not is_loopback(self._endpoint),
        )

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def select(self, repository: str, quantisation: str, revision: str) -> Selection:
        """Find the files of one quantisation.

        Raises:
            NotOnHubError: No such repository or quantisation; says which there are.
            PullError: Not allowed, or not understood.
            TransientHubError: Worth another try.
        """
        if not _REPOSITORY.fullmatch(repository):
            raise NotOnHubError(f"{repository!r} is not a repository name like 'owner/name'")
        where = f"/api/models/{repository}/revision/{quote(revision, safe='')}"
        body = bytearray()
        async with self._get(self._url(where, "blobs=true"), {}) as response:
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > METADATA_MAX_BYTES:
                    raise PullError(f"the hub's description of {repository} is over {METADATA_MAX_BYTES >> 20} MiB")
        commit, files = _read_metadata(bytes(body), repository)
        return Selection(repository, commit, _choose(files, repository, quantisation))

    def open(self, selection: Selection, file: HubFile, start: int) -> AbstractAsyncContextManager[httpx.Response]:
        """Open a file from byte `start` on. The status is 200 (whole file) or 206 (from `start`)."""
        where = f"/{selection.repository}/resolve/{selection.commit}/{quote(file.path)}"
        return self._get(self._url(where, ""), {"range": f"bytes={start}-"} if start else {})

    def _url(self, path: str, query: str) -> httpx.URL:
        raw = (self._endpoint.path.rstrip("/") + path + (f"?{query}" if query else "")).encode("ascii")
        return self._endpoint.copy_with(raw_path=raw)

    @asynccontextmanager
    async def _get(self, url: httpx.URL, headers: Mapping[str, str]) -> AsyncGenerator[httpx.Response]:
        """Follow redirects under our rules, and turn bad statuses and broken connections into words."""
        for _ in range(REDIRECTS_MAX + 1):
            sent = dict(headers)
            if self._token and _origin(url) == _origin(self._endpoint):
                sent["authorization"] = f"Bearer {self._token}"
            try:
                async with self._client.stream("GET", url, headers=sent) as response:
                    target = response.headers.get("location") if response.is_redirect else None
                    if target is None:
                        _check_status(response)
                        yield response
                        return
                    url = self._redirect(url, target)
            except httpx.HTTPError as error:
                # Addresses of the storage are signed: they are not for messages.
                raise TransientHubError(f"the connection to {url.host} failed ({type(error).__name__})") from error
        raise PullError(f"the hub redirected more than {REDIRECTS_MAX} times")

    def _redirect(self, source: httpx.URL, location: str) -> httpx.URL:
        try:
            target = source.join(location)
        except (httpx.InvalidURL, ValueError) as error:
            raise PullError("the hub redirected to something that is not a URL") from error
        local = is_loopback(self._endpoint) and is_loopback(target)
        if target.scheme != "https" and not local:
            raise PullError(f"the hub redirected to {target.scheme}://{target.host}, which is not https; not followed")
        allowed = (self._endpoint.host, *STORAGE_DOMAINS)
        if not local and not any(target.host == domain or target.host.endswith(f".{domain}") for domain in allowed):
            raise PullError(f"the hub redirected to {target.host}, which is not one of its hosts; not followed")
        return target


def is_loopback(url: httpx.URL) -> bool:
    """Does this URL stay on this machine?"""
    try:
        return ipaddress.ip_address(url.host).is_loopback
    except ValueError:
        return url.host == "localhost"


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _check_status(response: httpx.Response) -> None:
    status = response.status_code
    if status in (200, 206, 416):
        return
    if status in (401, 403):
        raise NotOnHubError(
            f"the hub answered {status}: no such repository, or it is private or gated; for the latter accept its "
            "conditions on its page and set HF_TOKEN"
        )
    if status == 404:
        raise NotOnHubError("the hub answered 404: no such repository, revision or file; check the name's spelling")
    if status in (408, 425, 429) or status >= 500:
        raise TransientHubError(f"the hub answered {status}", _retry_after(response.headers.get("retry-after")))
    raise PullError(f"the hub answered {status}, which was not expected")


def _retry_after(value: str | None) -> float:
    seconds = float(value) if value is not None and re.fullmatch(r"\d{1,9}(\.\d{1,3})?", value) else 0.0
    return min(seconds, RETRY_AFTER_MAX_S)


class _Stored(msgspec.Struct):
    """How the hub keeps a large file."""

    size: int
    sha256: str | None = None
    oid: str | None = None


class _Sibling(msgspec.Struct):
    """One file of a repository."""

    rfilename: str
    lfs: _Stored | None = None


class _Metadata(msgspec.Struct):
    """The members of the hub's answer that are read here."""

    sha: str
    siblings: list[_Sibling]


def _read_metadata(body: bytes, repository: str) -> tuple[str, tuple[HubFile, ...]]:
    try:
        found = msgspec.json.decode(body, type=_Metadata)
    except (msgspec.DecodeError, RecursionError) as error:
        raise PullError(f"the hub's description of {repository} is not what this release understands") from error
    if not _COMMIT.fullmatch(found.sha):
        raise PullError(f"the hub names no commit of {repository}")
    return found.sha, tuple(file for row in found.siblings[:FILES_MAX] if (file := _read_file(row)) is not None)


def _read_file(row: _Sibling) -> HubFile | None:
    """A GGUF with a checksum, or None: anything else in a repository is not ours."""
    if row.lfs is None or not row.rfilename.endswith(".gguf") or not _is_safe(row.rfilename):
        return None
    sha256 = row.lfs.sha256 or row.lfs.oid or ""
    if not 0 < row.lfs.size <= FILE_MAX_BYTES or not _SHA256.fullmatch(sha256):
        return None
    return HubFile(row.rfilename, row.lfs.size, sha256)


def _is_safe(path: str) -> bool:
    # The last part becomes a file name here.
    return path.isprintable() and "\\" not in path and not any(part in ("", ".", "..") for part in path.split("/"))


def _choose(files: tuple[HubFile, ...], repository: str, quantisation: str) -> tuple[HubFile, ...]:
    groups: dict[str, list[HubFile]] = {}
    for file in files:
        # Parts of one model share the name up to the part number.
        groups.setdefault(_PART.sub(".gguf", file.path), []).append(file)
    wanted = quantisation.lower()
    names = [name for name in groups if wanted in (name.lower(), PurePosixPath(name).name.lower())]
    names = names or [name for name in groups if _quantisation_of(name).lower() == wanted]
    if not names:
        there = sorted({_quantisation_of(name) or name for name in groups})
        known = f"it has {', '.join(there[:40])}" if there else "it has no GGUF files with checksums"
        raise NotOnHubError(f"{repository} has no {quantisation[:80]!r}: {known}")
    if len(names) > 1:
        raise NotOnHubError(f"{repository} has several {quantisation} files, name one: {', '.join(sorted(names)[:20])}")
    parts = sorted(groups[names[0]], key=lambda file: file.path)
    named = _PART.search(parts[0].path)
    if named is not None and int(named[1]) != len(parts):
        raise NotOnHubError(f"{repository} has only {len(parts)} of the {int(named[1])} parts of {names[0]}")
    return tuple(parts)


def _quantisation_of(name: str) -> str:
    found = _QUANTISATION.findall(PurePosixPath(name).name.removesuffix(".gguf"))
    found = found or _QUANTISATION.findall(str(PurePosixPath(name).parent))
    return found[-1].upper() if found else ""
