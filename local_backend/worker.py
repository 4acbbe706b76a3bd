"""The worker process: the only one with native code in it. `python -m local_backend.worker FD` talks on that socket.

The event loop reads requests and writes answers; the engine computes in a thread of its own. The process lives as long
as the gateway that started it: the kernel kills it with its parent, and the end of the socket ends it.
"""

import asyncio
import ctypes
import os
import resource
import signal
import socket
import sys
import threading
import traceback
from typing import Final

import msgspec

from local_backend.errors import LocalError
from local_backend.frames import FrameDecoder, Kind, WorkerSpec, encode_frame
from local_backend.lines import refusal_of
from local_backend.loading import Loaded, load
from local_backend.service import WorkerProtocol

NICENESS: Final = 19
"""The gateway's loop comes first on a machine that both share: at 5 it waited 3 ms for its turn, at 19 about 1 ms."""
SWITCH_INTERVAL_S: Final = 0.0005
"""The engine's thread comes back from native code thousands of times a second and must not wait 5 ms for the GIL."""
EXIT_PROGRAM_ERROR: Final = 70
"""EX_SOFTWARE: a bug in this process's own Python, not in native code."""

_PR_SET_PDEATHSIG: Final = 1
_READ_BYTES: Final = 1 << 16


def main(arguments: list[str]) -> int:
    """Serve the gateway at the other end of the inherited socket. Returns the exit status."""
    connection = socket.socket(fileno=int(arguments[0]))
    confine(parent_pid=int(arguments[1]))
    spec = _read_spec(connection)
    if spec is None:
        return 0
    try:
        loaded = load(spec)
    except LocalError as error:
        connection.sendall(encode_frame(Kind.REFUSED, 0, msgspec.json.encode(refusal_of(error))))
        return 0
    asyncio.run(_serve(connection, loaded, spec))
    # Destructors of a library with running threads have nothing to add: memory goes back with the process.
    os._exit(0)


def confine(*, parent_pid: int) -> None:
    """Die with the gateway, step behind it for the CPU, leave no core dumps, and let it decide about signals."""
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:
        os._exit(0)
    # A signal to the whole group or service is for the gateway, which drains first and then ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.nice(NICENESS)
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    threading.excepthook = _end_on_thread_error


def _end_on_thread_error(error: threading.ExceptHookArgs) -> None:
    """A dead engine thread would leave every request hanging; a dead process is seen and restarted at once."""
    traceback.print_exception(error.exc_type, error.exc_value, error.exc_traceback)
    sys.stderr.flush()
    os._exit(EXIT_PROGRAM_ERROR)


def _read_spec(connection: socket.socket) -> WorkerSpec | None:
    """The first frame, or None when the gateway went away before it."""
    decoder = FrameDecoder()
    while True:
        data = connection.recv(_READ_BYTES)
        if not data:
            return None
        for kind, _, payload in decoder.feed(data):
            if kind is Kind.SPEC:
                return msgspec.json.decode(payload, type=WorkerSpec)


async def _serve(connection: socket.socket, loaded: Loaded, spec: WorkerSpec) -> None:
    done = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(_end_on_loop_error)
    connection.setblocking(False)  # noqa: FBT003  # the socket API
    await loop.create_unix_connection(lambda: WorkerProtocol(loaded, spec, done), sock=connection)
    await done.wait()


def _end_on_loop_error(_loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
    """A callback that failed has left a request without an answer: end, so that the gateway sees it."""
    error = context.get("exception")
    print(context.get("message"), file=sys.stderr)  # noqa: T201  # stderr is what the supervisor keeps
    if isinstance(error, BaseException):
        traceback.print_exception(error)
    sys.stderr.flush()
    os._exit(EXIT_PROGRAM_ERROR)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
