"""From a file name to a model that is proven to compute, or to words why not. Runs in the worker, first thing."""

import fcntl
import math
import os
import time
from pathlib import Path
from typing import Final, NamedTuple

from local_backend import gguf, llama, memory, preflight
from local_backend.chat import ChatTemplate, Turn
from local_backend.errors import NotReadyError
from local_backend.file_errors import LocalBackendError
from local_backend.frames import WorkerFacts, WorkerSpec
from local_backend.requests import RENDER_MAX_S, time_limit

SMALL_MAX_BYTES: Final = 64 * 2**20
"""Files up to this size are small: one thread (two where that pays), no lock, nothing worth interrupting."""

_CPUINFO: Final = Path("/proc/cpuinfo")
_KEPT_OPEN: list[int] = []


class Loaded(NamedTuple):
    """A model ready to work."""

    model: llama.Model
    template: ChatTemplate
    facts: WorkerFacts


def load(spec: WorkerSpec) -> Loaded:
    """Check the machine and the file, load it, and decode a token with it.

    Raises:
        LocalError: NotReadyError with the cause in words.
    """
    started = time.monotonic()
    complaint = preflight.check_cpu()
    if complaint is not None:
        raise NotReadyError(complaint)
    try:
        file, room = _judge(spec)
        big = file.size_bytes > SMALL_MAX_BYTES
        if big and spec.lock_path is not None:
            _lock(spec.lock_path)
        llama.open_library()
        if spec.path != spec.demo_path and Path(spec.demo_path).exists():
            _prove_library(spec.demo_path)
        model = llama.Model(str(file.path), mmap=room.mmap, repack=room.repack)
        template = ChatTemplate(file.chat_template, model.vocabulary)
        with time_limit(RENDER_MAX_S):
            template.segments([Turn("user", "Hello")])
        _prove(model)
    except (LocalBackendError, llama.BindingError, llama.LoadError, OSError) as error:
        raise NotReadyError(str(error)) from error
    facts = WorkerFacts(
        pid=os.getpid(),
        size_bytes=file.size_bytes,
        context_tokens=room.context_tokens,
        slots=spec.slots,
        threads=spec.threads or _default_threads(big=big),
        vocabulary_tokens=model.vocabulary.size,
        load_s=time.monotonic() - started,
        big=big,
        description=f"{file.name or spec.name}, {file.quantisation}",
        second_thread=spec.threads is None and not big and len(os.sched_getaffinity(0)) > 1,
    )
    return Loaded(model, template, facts)


def _judge(spec: WorkerSpec) -> tuple[gguf.GgufFacts, memory.Fit]:
    """The file by its header and the memory by numbers, before native code sees anything.

    Raises:
        LocalBackendError: A bad file.
        NotReadyError: It does not fit.
    """
    file = gguf.inspect(Path(spec.path))
    context_tokens = min(spec.context_tokens, file.context_length)
    available_bytes = memory.available_bytes()
    room = memory.fit(file, context_tokens=context_tokens, slots=spec.slots, available_bytes=available_bytes)
    if room.refusal is not None:
        raise NotReadyError(room.refusal)
    return file, room


def _lock(path: str) -> None:
    """One big model per machine and user: two of them would push each other out of memory."""
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise NotReadyError(
            "another process has a big model loaded, and there is room for one at a time; stop it first",
            retry_after_s=30.0,
        ) from None
    _KEPT_OPEN.append(descriptor)


def _prove_library(demo_path: str) -> None:
    """Decode with the bundled model first: a library built for another CPU dies here, not after a long load."""
    model = llama.Model(demo_path)
    try:
        _prove(model)
    finally:
        model.close()


def _prove(model: llama.Model) -> None:
    """One token through the whole model must give finite numbers."""
    context = llama.Context(model, cells=256, sequences=1, batch_tokens=8, threads=1)
    try:
        batch = llama.Batch(8, 1)
        batch.clear()
        row = batch.add(0, [max(model.vocabulary.bos, 0)], 0, want_last=True)
        code = context.decode(batch)
        if code != 0:
            raise NotReadyError(f"llama.cpp could not compute a first token with this file (it answered {code})")
        if not all(map(math.isfinite, context.logits(row)[: model.vocabulary.size])):
            raise NotReadyError("the file's weights give numbers that are not finite: it is damaged, download it again")
    finally:
        context.close()


def _default_threads(*, big: bool) -> int:
    """One for a small model; else all physical cores but one, which the gateway needs."""
    if not big:
        return 1
    return max(1, min(physical_cores(), len(os.sched_getaffinity(0))) - 1)


def physical_cores() -> int:
    """Cores, not hardware threads."""
    cores: set[tuple[str, str]] = set()
    package = ""
    try:
        for line in _CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "physical id":
                package = value.strip()
            elif name.strip() == "core id":
                cores.add((package, value.strip()))
    except OSError:
        return os.cpu_count() or 1
    return len(cores) or os.cpu_count() or 1


def resident_bytes() -> int:
    """This process's memory."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")
