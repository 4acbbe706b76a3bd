"""The local backend as the gateway sees it: a transport that carries requests to models on this machine.

Importing this loads nothing heavy and nothing native; every model runs in a worker process of its own.
"""

import asyncio
import glob
import importlib.util
import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec
from msgspec import Struct

from local_backend.client import LocalResponse, refusal_response
from local_backend.demo_model import DEMO_FILE, DESCRIPTION
from local_backend.errors import ContextLengthError, LocalError, NotReadyError, UnknownModelError
from local_backend.frames import WorkerSpec, WorkerStats
from local_backend.lines import refusal_of
from local_backend.supervisor import BOOT_WAIT_MAX_S, State, Supervisor

BUNDLED: Final = "bundled"
"""The `file` that stands for the model in the package."""
BODY_MAX_BYTES: Final = 8 * 2**20
"""A larger request fits no local context."""
QUEUE_MAX: Final = 16
"""Requests that wait for a slot of one model."""
BIG_MIN_BYTES: Final = 64 * 2**20
"""Of models from this size on, one runs at a time."""
SLOTS_MAX: Final = 16
FILE_WATCH_S: Final = 5.0
"""How often a file that is missing is looked for."""
PROCESS_START_S: Final = 0.3
"""What a worker process takes to begin, before it loads its model."""
READING_BYTES_PER_S: Final = 500 * 2**20
"""How fast a model is loaded that was never loaded before, about."""

_log = logging.getLogger("local_backend")
_SCHEME: Final = "local:"
_FIRST_SHARD: Final = re.compile(r"(.+)-00001-of-(\d{5})\.gguf")


class LocalModelSpec(Struct, frozen=True, kw_only=True):
    """A local model as configured."""

    name: str
    file: str
    """`bundled`, an absolute path, or a file name in the models folder."""
    slots: int = 4
    context_tokens: int = 4096
    """Per slot."""
    load: Literal["boot", "lazy"] = "lazy"
    threads: int | None = None


class LocalModelStatus(Struct, frozen=True, kw_only=True):
    """How a local model is."""

    name: str
    state: State
    can_serve: bool
    """Whether a request is worth sending. A model that is off may be loaded by one."""
    reason: str
    file: str
    context_tokens: int
    slots: int
    queue: int
    """Places to wait in when all slots are taken."""
    running: int
    """Requests that have a slot."""
    waiting: int
    """Requests that wait for one, or for the model to be loaded."""
    start_s: float
    """How long the next request waits for the model to be loaded, about: 0 when it is there."""
    size_bytes: int | None
    description: str


class WireRequest(Protocol):
    """What `send` needs of a request."""

    @property
    def url(self) -> str:
        """`local:<model name>`."""
        ...

    @property
    def body(self) -> bytes:
        """The request's JSON."""
        ...

    @property
    def stream(self) -> bool:
        """Whether lines are wanted as they come."""
        ...

    @property
    def caller(self) -> str:
        """Whose request it is, in a word that says nothing else. The queue is fair to callers."""
        ...


class _Deadline(Struct):
    deadline_s: float | None = None


_deadlines: Final = msgspec.json.Decoder(_Deadline)


class LocalBackend:
    """All local models of one gateway process.

    Args:
        specs: The models.
        home: Where `models/` and `run/` are.
    """

    def __init__(self, specs: Sequence[LocalModelSpec], home: Path) -> None:
        self._home = home
        self._specs = {spec.name: spec for spec in specs}
        self._paths = {spec.name: self._path(spec) for spec in specs}
        self._sizes: dict[str, int] = {}
        self._off: dict[str, str] = {}
        self._supervisors: dict[str, Supervisor] = {}
        self._making_room = asyncio.Lock()
        self._lock_path: str | None = str(home / "run" / "big-model.lock")
        self._watcher: asyncio.Task[None] | None = None

    def _path(self, spec: LocalModelSpec) -> Path:
        return DEMO_FILE if spec.file == BUNDLED else (self._home / "models" / spec.file).absolute()

    async def start(self) -> None:
        """Look at the files and start what is to be loaded at boot. Returns at once; loading goes on behind it."""
        missing = missing_package()
        if missing is not None:
            self._off = dict.fromkeys(self._specs, missing)
            return
        try:
            await asyncio.to_thread((self._home / "run").mkdir, parents=True, exist_ok=True)
        except OSError as error:
            _log.warning("%s cannot be made (%s): other gateways cannot see our big models", self._home / "run", error)
            self._lock_path = None
        await self._take_up(tuple(self._specs))
        if self._off:
            self._watcher = asyncio.get_running_loop().create_task(self._watch_for_files())

    async def _take_up(self, names: Sequence[str]) -> None:
        """Supervise the models whose files are there, and load those that are to be loaded at boot."""
        sizes = await asyncio.to_thread(lambda: {name: file_size(self._paths[name]) for name in names})
        for name, size_bytes in sizes.items():
            if size_bytes is None:
                self._off[name] = (
                    f"not pulled: {self._paths[name]} is not there; get it with `mixgate pull`, or correct `file`"
                )
                continue
            self._off.pop(name, None)
            self._sizes[name] = size_bytes
            self._supervisors[name] = supervisor = Supervisor(self._worker_spec(self._specs[name]))
            if self._specs[name].load != "boot":
                continue
            if self._is_big(name) and any(self._is_big(other) and self._runs(other) for other in self._supervisors):
                supervisor.reason = "one big model runs at a time; it is loaded when asked for while the other is idle"
                continue
            supervisor.start()

    async def _watch_for_files(self) -> None:
        """A file that is pulled while the gateway runs is taken up."""
        while self._off:
            await asyncio.sleep(FILE_WATCH_S)
            await self._take_up(tuple(self._off))

    def _is_big(self, name: str) -> bool:
        return self._sizes[name] >= BIG_MIN_BYTES

    def _runs(self, name: str) -> bool:
        return self._supervisors[name].state in ("ready", "starting")

    def _worker_spec(self, spec: LocalModelSpec) -> WorkerSpec:
        return WorkerSpec(
            name=spec.name,
            path=str(self._paths[spec.name]),
            demo_path=str(DEMO_FILE),
            slots=max(1, min(spec.slots, SLOTS_MAX)),
            context_tokens=spec.context_tokens,
            queue=QUEUE_MAX,
            threads=spec.threads,
            lock_path=self._lock_path,
        )

    async def aclose(self) -> None:
        """End every worker. What is under way ends with an error."""
        if self._watcher is not None:
            self._watcher.cancel()
        await asyncio.gather(*(supervisor.stop("the gateway is stopping") for supervisor in self._supervisors.values()))

    def models(self) -> tuple[LocalModelStatus, ...]:
        """Every configured model and how it is."""
        return tuple(self._status(spec) for spec in self._specs.values())

    def _status(self, spec: LocalModelSpec) -> LocalModelStatus:
        supervisor = self._supervisors.get(spec.name)
        facts = None if supervisor is None else supervisor.facts
        description = DESCRIPTION if spec.file == BUNDLED else "" if facts is None else facts.description
        return LocalModelStatus(
            name=spec.name,
            state="off" if supervisor is None else supervisor.state,
            can_serve=supervisor is not None and supervisor.can_serve,
            reason=self._off.get(spec.name, "not started yet") if supervisor is None else supervisor.reason,
            file=str(self._paths[spec.name]),
            context_tokens=spec.context_tokens if facts is None else facts.context_tokens,
            slots=spec.slots if facts is None else facts.slots,
            queue=QUEUE_MAX,
            running=0 if supervisor is None else supervisor.running,
            waiting=0 if supervisor is None else supervisor.waiting,
            start_s=0.0 if supervisor is None else self._start_s(spec.name, supervisor),
            size_bytes=self._sizes.get(spec.name),
            description=description,
        )

    def _start_s(self, name: str, supervisor: Supervisor) -> float:
        """As long as the last time, or as long as reading a file of that size takes."""
        if supervisor.state == "ready":
            return 0.0
        facts = supervisor.facts
        return PROCESS_START_S + (self._sizes[name] / READING_BYTES_PER_S if facts is None else facts.load_s)

    async def send(self, request: WireRequest, *, connect_timeout_s: float) -> LocalResponse:  # noqa: ARG002  # the seam's
        """Ask a model. Returns once the first line is here (stream) or the whole body (not stream).

        A model that is starting is waited for, up to the request's deadline and at most BOOT_WAIT_MAX_S; a connect
        limit made for networks would give up on a model that is loading. Refusals are answers with a status.
        """
        try:
            return await self._send(request)
        except LocalError as error:
            return refusal_response(refusal_of(error))

    async def _send(self, request: WireRequest) -> LocalResponse:
        name = request.url.removeprefix(_SCHEME)
        supervisor = self._supervisor(name)
        if len(request.body) > BODY_MAX_BYTES:
            raise ContextLengthError(
                f"the request is {len(request.body)} bytes long, and the local model's context is "
                f"{self._specs[name].context_tokens} tokens",
                param="messages",
            )
        await self._make_room(name)
        return await supervisor.send(
            request.body,
            whole=not request.stream,
            deadline_s=_deadline_s(request.body),
            caller=request.caller,
        )

    def _supervisor(self, name: str) -> Supervisor:
        supervisor = self._supervisors.get(name)
        if supervisor is not None:
            return supervisor
        if name not in self._specs:
            raise UnknownModelError(f"there is no local model {name[:100]!r}", param="model")
        raise NotReadyError(f"the local model {name} is off: {self._off.get(name, 'the gateway is starting')}")

    async def _make_room(self, name: str) -> None:
        """One big model at a time: an idle one gives way, a busy one does not."""
        supervisor = self._supervisors[name]
        if supervisor.state == "ready" or not self._is_big(name):
            return
        async with self._making_room:
            for other, running in self._supervisors.items():
                if other == name or not self._is_big(other) or not self._runs(other):
                    continue
                if running.busy or running.state == "starting":
                    raise NotReadyError(
                        f"the local model {other} is busy, and one big model runs at a time", retry_after_s=10.0
                    )
                await running.stop(f"it made room for {name}; it is loaded again when asked for")
            supervisor.start()

    async def wait_ready(self, name: str, limit_s: float = BOOT_WAIT_MAX_S) -> None:
        """Until a model is loaded.

        Raises:
            LocalError: It will not be, or not in time.
        """
        supervisor = self._supervisor(name)
        await self._make_room(name)
        await supervisor.wait_ready(limit_s)

    async def stats(self, name: str) -> WorkerStats:
        """How a running model's worker is doing.

        Raises:
            LocalError: It does not run.
        """
        link = await self._supervisor(name).wait_ready(0)
        return await link.stats()

    def worker_pid(self, name: str) -> int | None:
        """The process id of a model's worker, while there is one."""
        supervisor = self._supervisors.get(name)
        return None if supervisor is None else supervisor.pid


def file_size(path: Path) -> int | None:
    """A model file's size in bytes, of a split one all parts together; None when it is not there."""
    shard = _FIRST_SHARD.fullmatch(path.name)
    paths = [path] if shard is None else path.parent.glob(f"{glob.escape(shard[1])}-?????-of-{shard[2]}.gguf")
    try:
        return path.stat().st_size and sum(each.stat().st_size for each in paths)
    except OSError:
        return None


def missing_package() -> str | None:
    """What of the `local` extra is not installed, and how to get it; None if all is there. Imports nothing."""
    for module in ("llama_cpp", "jinja2"):
        if importlib.util.find_spec(module) is None:
            return (
                "the local extra is not installed: run `make run` (needs a C++ compiler), or "
                "CMAKE_ARGS=-DGGML_NATIVE=OFF pip install 'mixgate[local]'"
            )
    return None


def _deadline_s(body: bytes) -> float | None:
    try:
        return _deadlines.decode(body).deadline_s
    except msgspec.MsgspecError:
        return None  # the worker says what is wrong with it
