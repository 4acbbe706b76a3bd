"""Download a model: only when asked, never twice, never half.

Bytes go to `<sha256>.part` in the models folder; whatever ends the download, the next one goes on from there. A file
gets its name only when its checksum is right, by a rename, so no worker ever sees half a file and a file in use is
never changed. Imported by the `pull` command alone: it brings httpx and tenacity along.
"""

import asyncio
import contextlib
import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import IO, ClassVar, Final, Literal, Protocol, TypeVar

import tenacity

from local_backend import gguf
from local_backend.catalogue import find_repository
from local_backend.file_errors import BadFileError, ChecksumError, DiskFullError, OfflineError, PullBusyError, PullError
from local_backend.hub import DEFAULT_ENDPOINT, Hub, HubFile, Selection, TransientHubError

CHUNK_BYTES: Final = 1 << 20
PROGRESS_INTERVAL_S: Final = 0.5
DISK_MARGIN: Final = 1.05
FRUITLESS_ATTEMPTS_MAX: Final = 6
"""Attempts in a row that bring no byte; one that does starts the count again."""
RETRY_WAIT_S: Final = 1.0
RETRY_WAIT_MAX_S: Final = 30.0
JUDGED_FROM_BYTES: Final = 16 << 20
"""With so much of a file there, its header is: what llama.cpp cannot load is refused before the other 26 GB."""
EXAMPLE: Final = "mradermacher/Mixtral-8x7B-Instruct-v0.1-GGUF:Q4_K_M"
LOCK_NAME: Final = ".pull.lock"
_TRUE: Final = frozenset({"1", "on", "yes", "true"})

_Result = TypeVar("_Result")


class _Digest(Protocol):
    def update(self, data: bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


Stage = Literal["asking", "checking", "downloading", "done"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a download is; sent at least once a second, also while nothing moves."""

    stage: Stage
    file: str
    file_number: int
    """From 1."""
    files: int
    done_bytes: int
    """Of all files together."""
    total_bytes: int
    bytes_per_s: float
    """Over the last seconds; 0 while nothing arrives."""


@dataclass(frozen=True, slots=True)
class Pulled:
    """A model that is there now."""

    path: Path
    """The file to name in providers.yaml: of several parts, the first."""
    files: tuple[Path, ...]
    commit: str
    facts: gguf.GgufFacts


def parse_reference(text: str) -> tuple[str, str]:
    """Split "owner/name:Q4_K_M" into repository and quantisation.

    Raises:
        PullError: It is not of that form.
    """
    repository, colon, quantisation = text.strip().partition(":")
    if not colon or "/" not in repository or not quantisation:
        raise PullError(f"{text[:80]!r} is not of the form owner/name:QUANTISATION, such as {EXAMPLE}")
    return repository, quantisation


async def pull(
    repository: str,
    quantisation: str,
    *,
    models: Path,
    on_progress: Callable[[Progress], None] = lambda _: None,
    endpoint: str | None = None,
    revision: str = "main",
    environ: Mapping[str, str] = os.environ,
    retry_wait_s: float = RETRY_WAIT_S,
) -> Pulled:
    """Download one quantisation of a repository, or go on with it, or find that it is there.

    Cancelling the task stops it at once; what has arrived stays for the next call.

    Args:
        repository: "owner/name" on the hub.
        quantisation: "Q4_K_M", or the name of a file.
        models: The folder; made if missing.
        on_progress: Called on the event loop.
        endpoint: Default `HF_ENDPOINT`, else huggingface.co.
        revision: Branch, tag or commit.
        environ: Where `HF_ENDPOINT`, `HF_TOKEN` and `HF_HUB_OFFLINE` are looked up.
        retry_wait_s: First pause after a failed attempt; doubles up to 30 s.

    Raises:
        PullError: One of its kinds, each with what to do.
        BadFileError: The file is what the hub says it is, and llama.cpp could not load it.
    """
    if environ.get("HF_HUB_OFFLINE", "").lower() in _TRUE:
        raise OfflineError("HF_HUB_OFFLINE is set, so nothing is downloaded; unset it, or copy the file by hand")
    known = find_repository(repository)
    if known is not None and known.state == "does_not_load":
        raise PullError(f"{known.name} does not load: {known.note} ({known.source}); use {gguf.WORKING_REPOSITORIES}")
    address = endpoint or environ.get("HF_ENDPOINT") or DEFAULT_ENDPOINT
    with _lock(models):
        async with Hub(address, environ.get("HF_TOKEN") or None) as hub:
            return await _Download(hub, models, on_progress, retry_wait_s).run(repository, quantisation, revision)


class _Download:
    """One call of `pull`: its files, and how far they are."""

    def __init__(self, hub: Hub, models: Path, on_progress: Callable[[Progress], None], retry_wait_s: float) -> None:
        self._hub = hub
        self._models = models
        self._on_progress = on_progress
        self._retry_wait_s = retry_wait_s
        self._stage: Stage = "asking"
        self._file = ""
        self._number, self._files = 0, 0
        self._finished_bytes, self._file_bytes, self._total_bytes = 0, 0, 0
        self._fruitless = 0
        self._speed = _Speed()

    async def run(self, repository: str, quantisation: str, revision: str) -> Pulled:
        async with self._ticking():
            selection = await self._retrying(lambda: self._hub.select(repository, quantisation, revision))
            self._files = len(selection.files)
            self._total_bytes = sum(file.size_bytes for file in selection.files)
            self._check_disk(selection)
            paths: list[Path] = []
            for number, file in enumerate(selection.files, 1):
                self._number, self._file, self._file_bytes = number, file.name, 0
                paths.append(await self._fetch(selection, file))
                self._finished_bytes += file.size_bytes
            self._file_bytes = 0
            self._stage = "done"
        return Pulled(paths[0], tuple(paths), selection.commit, gguf.inspect(paths[0]))

    async def _fetch(self, selection: Selection, file: HubFile) -> Path:
        target, part = self._models / file.name, self._part(file)
        if self._is_there(file):
            self._stage = "checking"
            if (await self._hash(target)).hexdigest() == file.sha256:
                return target
        await self._retrying(lambda: self._attempt(selection, file, part))
        part.replace(target)
        return target

    async def _attempt(self, selection: Selection, file: HubFile, part: Path) -> None:
        """Bring `part` from whatever it is to complete and checked."""
        with part.open("ab", buffering=0) as out:
            if out.tell() > file.size_bytes:
                out.truncate(0)
            self._stage = "checking"
            digest = await self._hash(part)
            self._stage = "downloading"
            if self._file_bytes < file.size_bytes:
                try:
                    digest = await self._receive(selection, file, out, digest)
                except BadFileError:
                    _discard(part)
                    raise
            if digest.hexdigest() != file.sha256:
                _discard(part)
                raise ChecksumError(
                    f"{file.name} arrived with sha256 {digest.hexdigest()[:12]}... instead of {file.sha256[:12]}...; "
                    "it was deleted: try again, and if it happens again do not trust this source"
                )
            os.fsync(out.fileno())

    async def _receive(self, selection: Selection, file: HubFile, out: FileIO, digest: _Digest) -> _Digest:
        """Append the rest of the file; returns the digest of the whole."""
        async with self._hub.open(selection, file, self._file_bytes) as response:
            if response.status_code == 206:
                _check_range(response.headers.get("content-range", ""), self._file_bytes, file.size_bytes)
            elif response.status_code == 416:
                out.truncate(0)
                raise TransientHubError("the hub does not have the range asked for; this file starts again")
            elif self._file_bytes:
                # The range was ignored and everything is coming: so everything it is.
                out.truncate(0)
                self._file_bytes, digest = 0, hashlib.sha256()
            judged = self._number > 1 or self._file_bytes >= JUDGED_FROM_BYTES
            async for chunk in response.aiter_raw(CHUNK_BYTES):
                if self._file_bytes + len(chunk) > file.size_bytes:
                    out.truncate(0)
                    raise ChecksumError(f"the hub sent more than the {file.size_bytes:,} bytes that {file.name} has")
                _write_all(out, chunk)
                digest.update(chunk)
                self._file_bytes += len(chunk)
                if not judged and self._file_bytes >= JUDGED_FROM_BYTES:
                    gguf.judge_beginning(self._part(file), full_size_bytes=file.size_bytes)
                    judged = True
                self._speed.add(len(chunk))
                self._fruitless = 0
        if self._file_bytes < file.size_bytes:
            raise TransientHubError(f"the connection ended after {self._file_bytes:,} of {file.size_bytes:,} bytes")
        return digest

    async def _hash(self, path: Path) -> _Digest:
        """Digest what is there, counting it as done."""
        digest = hashlib.sha256()
        self._file_bytes = 0
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                digest.update(chunk)
                self._file_bytes += len(chunk)
                # A large file takes a while: let the progress be told and a cancellation arrive.
                await asyncio.sleep(0)
        return digest

    async def _retrying(self, call: Callable[[], Awaitable[_Result]]) -> _Result:
        """Call until it works, fails for good, or brings nothing `FRUITLESS_ATTEMPTS_MAX` times in a row."""
        self._fruitless = 0

        def stop(_state: tenacity.RetryCallState) -> bool:
            self._fruitless += 1
            return self._fruitless >= FRUITLESS_ATTEMPTS_MAX

        retrying = tenacity.AsyncRetrying(
            retry=tenacity.retry_if_exception_type(TransientHubError),
            stop=stop,
            wait=self._pause,
            reraise=True,
        )

        async def attempt() -> _Result:
            return await call()

        try:
            # tenacity tells a coroutine function from others by its definition, so a lambda needs this wrapping.
            return await retrying(attempt)
        except TransientHubError as error:
            raise PullError(
                f"gave up after {FRUITLESS_ATTEMPTS_MAX} attempts that brought nothing: {error.message}; "
                "what has arrived is kept, the same command goes on from there"
            ) from error

    def _pause(self, state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        asked_s = error.retry_after_s if isinstance(error, TransientHubError) else 0.0
        doubled_s = min(self._retry_wait_s * 2.0 ** max(0, self._fruitless - 1), RETRY_WAIT_MAX_S)
        return max(asked_s, doubled_s)

    def _is_there(self, file: HubFile) -> bool:
        target = self._models / file.name
        return target.is_file() and target.stat().st_size == file.size_bytes

    def _part(self, file: HubFile) -> Path:
        return self._models / f"{file.sha256}.part"

    def _check_disk(self, selection: Selection) -> None:
        missing = 0
        for file in selection.files:
            part = self._part(file)
            if not self._is_there(file):
                missing += max(0, file.size_bytes - (part.stat().st_size if part.is_file() else 0))
        free = shutil.disk_usage(self._models).free
        if missing * DISK_MARGIN > free:
            raise DiskFullError(
                f"{missing * DISK_MARGIN / 1e9:.1f} GB of disk are needed in {self._models}, and {free / 1e9:.1f} GB "
                "are free: make room, or set MIXGATE_HOME to a larger disk"
            )

    @contextlib.asynccontextmanager
    async def _ticking(self) -> AsyncGenerator[None]:
        """Tell the progress from now on, and once more at the end of a download that worked."""

        async def tick() -> None:
            while True:
                self._tell()
                await asyncio.sleep(PROGRESS_INTERVAL_S)

        ticker = asyncio.create_task(tick())
        try:
            yield
            self._tell()
        finally:
            ticker.cancel()

    def _tell(self) -> None:
        self._on_progress(
            Progress(
                stage=self._stage,
                file=self._file,
                file_number=self._number,
                files=self._files,
                done_bytes=self._finished_bytes + self._file_bytes,
                total_bytes=self._total_bytes,
                bytes_per_s=self._speed.bytes_per_s(),
            )
        )


class _Speed:
    """Bytes per second over the last `WINDOW_S`."""

    WINDOW_S: ClassVar[float] = 5.0

    def __init__(self) -> None:
        self._arrived: deque[tuple[float, int]] = deque()

    def add(self, size_bytes: int) -> None:
        self._arrived.append((time.monotonic(), size_bytes))
        self._forget()

    def bytes_per_s(self) -> float:
        self._forget()
        if not self._arrived:
            return 0.0
        span_s = max(time.monotonic() - self._arrived[0][0], 0.1)
        return sum(size for _, size in self._arrived) / span_s

    def _forget(self) -> None:
        oldest = time.monotonic() - self.WINDOW_S
        while self._arrived and self._arrived[0][0] < oldest:
            self._arrived.popleft()


def _discard(part: Path) -> None:
    part.unlink(missing_ok=True)


def _check_range(header: str, start: int, size: int) -> None:
    if header.replace(" ", "") != f"bytes{start}-{size - 1}/{size}":
        raise PullError(f"the hub answered with the range {header[:80]!r} instead of bytes {start} to {size - 1}")


def _write_all(out: FileIO, chunk: bytes) -> None:
    # An unbuffered file may take less than it was given.
    view = memoryview(chunk)
    while view:
        view = view[out.write(view) :]


_NOT_OURS: Final = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST})
"""What the system says of a folder that is read-only, somebody else's, or no folder."""


@contextlib.contextmanager
def _folder_errors(models: Path) -> Generator[None]:
    try:
        yield
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise DiskFullError(f"the disk of {models} is full; make room, the same command goes on") from error
        if error.errno in _NOT_OURS:
            raise PullError(
                f"{models} cannot be written: {error.strerror}. Set MIXGATE_HOME to a folder that this user owns and "
                "can write, here and for `mixgate serve`, or mount that one writable; what is there stays of use"
            ) from error
        raise PullError(f"{models} cannot be used: {error}") from error


def _open_lock(models: Path) -> IO[bytes]:
    models.mkdir(parents=True, exist_ok=True)
    return (models / LOCK_NAME).open("ab")


@contextlib.contextmanager
def _lock(models: Path) -> Generator[None]:
    """One download at a time in one folder; a lock of the kernel's, so it dies with its holder."""
    with _folder_errors(models), _open_lock(models) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise PullBusyError("another `mixgate pull` is running; wait for it, or stop it") from None
        yield
