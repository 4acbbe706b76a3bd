"""What `mixgate serve` runs: one process that is everything, or a parent with an owner and workers."""

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, Final

import uvloop

from gateway.alerts.starting import tell_on
from gateway.app import Gateway, local_models
from gateway.config.catalogue import Catalogue
from gateway.config.load import load
from gateway.config.locations import home_folder
from gateway.config.watch import Watcher
from gateway.errors import ConfigError
from gateway.keys.storage import has_issued_keys
from gateway.logs import adopt
from gateway.server.run import EdgeServer, ServerSettings, raise_open_file_limit
from gateway.server.run import serve as run_server
from gateway.state.connection import FILE_NAME
from gateway.state.errors import StoreInUseError
from gateway.workers.control import (
    Began,
    Control,
    ControlLink,
    Drain,
    Ended,
    Finish,
    Ready,
    StandIn,
    Start,
    StepBack,
    say_alive,
)
from gateway.workers.owner import Owner
from gateway.workers.parent import Parent, hearing, listen, only_one
from gateway.workers.post import Post
from local_backend.backend import LocalBackend, LocalModelStatus
from providers.http_transport import HttpTransport

ORPHANED: Final = signal.SIGINT
"""As which signal the end of the parent counts: there is no load balancer left to wait for."""

EXIT_INTERRUPTED: Final = 130
"""Of what Ctrl-C ended before it had begun, as a shell has it: 128 and the signal's number."""

Announce = Callable[[Catalogue, str, int], None]
_log = logging.getLogger("mixgate")


def serve(path: Path, env: Mapping[str, str], overrides: Mapping[str, Any], announce: Announce) -> int:
    """Run a gateway until it is told to stop; gives the exit code.

    Args:
        path: The providers.yaml to serve.
        env: The environment: keys and settings.
        overrides: Settings of the `gateway` section given as flags.
        announce: Called once it listens, with the host and port.

    Raises:
        ConfigError: The configuration cannot be used, or the address cannot be listened on.
    """
    catalogue = _load(path, env, overrides)
    if catalogue.gateway.workers == 1:
        return uvloop.run(_serve(catalogue, env, overrides, announce))
    settings = catalogue.gateway
    home = home_folder(env)
    with only_one(home):
        groups = listen(settings.host, settings.port, settings.workers)
        parent = Parent(home, catalogue.path, overrides, groups, settings.drain_s)
        return uvloop.run(parent.run(lambda host, port: announce(catalogue, host, port)))


def _load(path: Path, env: Mapping[str, str], overrides: Mapping[str, Any]) -> Catalogue:
    return load(path, env, overrides, has_issued_keys=has_issued_keys(home_folder(env) / FILE_NAME))


async def _serve(catalogue: Catalogue, env: Mapping[str, str], overrides: Mapping[str, Any], announce: Announce) -> int:
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    gateway = Gateway(catalogue, home_folder(env))
    watching: asyncio.Task[None] | None = None
    with hearing(asyncio.get_running_loop(), signals):
        try:
            told = await _unless_told(gateway.start(), signals)
            if told is not None:
                return EXIT_INTERRUPTED if told is signal.SIGINT else 0
            watching = asyncio.create_task(_watcher(gateway, catalogue, env, overrides).run())
            return await run_server(
                gateway.application,
                _server_settings(catalogue),
                gateway.lifecycle,
                lambda host, port: announce(catalogue, host, port),
                signals,
            )
        finally:
            if watching is not None:
                watching.cancel()
            await gateway.aclose()


async def _unless_told(
    starting: Coroutine[Any, Any, None], signals: "asyncio.Queue[signal.Signals]"
) -> signal.Signals | None:
    """Let it come to its end; where a signal comes first, it is given up, and the signal given."""
    task, heard = asyncio.ensure_future(starting), asyncio.ensure_future(signals.get())
    both: set[asyncio.Future[Any]] = {task, heard}
    await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        if not heard.cancel():
            signals.put_nowait(heard.result())
        task.result()
        return None
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    return heard.result()


def _watcher(gateway: Gateway, catalogue: Catalogue, env: Mapping[str, str], overrides: Mapping[str, Any]) -> Watcher:
    return Watcher(
        catalogue,
        lambda: load(catalogue.path, env, overrides, has_issued_keys=gateway.access.ring.has_keys),
        on_change=gateway.replace,
        on_error=_log_refused,
    )


def _server_settings(catalogue: Catalogue, **more: Any) -> ServerSettings:
    settings = catalogue.gateway
    return ServerSettings(
        host=settings.host,
        port=settings.port,
        tls_cert=settings.tls.cert if settings.tls else None,
        tls_key=settings.tls.key if settings.tls else None,
        drain_s=settings.drain_s,
        **more,
    )


def _log_refused(error: ConfigError) -> None:
    _log.error("the changed configuration is refused, the old one stays:\n%s", error)


def run_child(descriptor: int, parent_pid: int, env: Mapping[str, str]) -> int:
    """Be what the parent at the other end of a socket says; gives the exit code.

    Raises:
        ConfigError: The configuration cannot be used.
    """
    _leave_signals_to_parent()
    if os.getppid() != parent_pid:
        return 0
    return uvloop.run(_run_child(socket.socket(fileno=descriptor), env))


def _leave_signals_to_parent() -> None:
    """A signal to all of a service is for the parent, which knows in which order things end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


async def _run_child(connection: socket.socket, env: Mapping[str, str]) -> int:
    said: asyncio.Queue[Control | None] = asyncio.Queue()
    connection.setblocking(False)  # noqa: FBT003  # the socket API
    loop = asyncio.get_running_loop()
    link = ControlLink(said.put_nowait, lambda: said.put_nowait(None))
    await loop.create_unix_connection(lambda: link, sock=connection)
    start = await said.get()
    if not isinstance(start, Start):
        return 0
    os.environ["MIXGATE_PROCESS"] = start.name
    run = _own if start.role == "owner" else _work
    living = asyncio.create_task(say_alive(link))
    try:
        return await run(start, link, said, env)
    finally:
        living.cancel()


async def _own(start: Start, link: ControlLink, said: "asyncio.Queue[Control | None]", env: Mapping[str, str]) -> int:
    """Be the owner."""
    catalogue = await asyncio.to_thread(_load, Path(start.config), env, start.overrides)
    adopt(catalogue.gateway.log)
    home = home_folder(env)
    owner = Owner(home, LocalBackend(local_models(catalogue), home=home), start.living, catalogue.gateway)
    try:
        await owner.start()
    except StoreInUseError as error:
        _log.error("%s", error)
        return 1
    transport = HttpTransport()
    telling = asyncio.create_task(tell_on(home, lambda: catalogue, transport))
    link.say(Ready())
    while True:
        message = await said.get()
        if isinstance(message, Began):
            owner.begin(message.name)
        elif isinstance(message, Ended):
            owner.bury(message.name)
        elif isinstance(message, Finish):
            break
        elif message is None:
            _log.error("the parent is gone: the owner ends once every worker has")
            await owner.wait_alone()
            break
    telling.cancel()
    await transport.aclose()
    await owner.aclose()
    return 0


async def _work(start: Start, link: ControlLink, said: "asyncio.Queue[Control | None]", env: Mapping[str, str]) -> int:
    """Be a worker."""
    raise_open_file_limit()
    catalogue = await asyncio.to_thread(_load, Path(start.config), env, start.overrides)
    post = Post(home_folder(env), start.name, lambda one: LocalModelStatus(**one))
    gateway = Gateway(catalogue, home_folder(env), post=post)
    await gateway.start()
    signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
    settings = _server_settings(catalogue, inherited=start.sockets, own=start.number - 1)
    server = EdgeServer(gateway.application, settings, gateway.lifecycle, signals)
    watching = asyncio.create_task(_watcher(gateway, catalogue, env, start.overrides).run())
    obeying = asyncio.create_task(_obey(said, server, signals))
    try:
        await server.run_until_signal(lambda _host, _port: link.say(Ready()))
    finally:
        watching.cancel()
        obeying.cancel()
        await gateway.aclose()
    return 0


async def _obey(
    said: "asyncio.Queue[Control | None]", server: EdgeServer, signals: "asyncio.Queue[signal.Signals]"
) -> None:
    """Do what the parent says, until cancelled."""
    standing_in: dict[int, Callable[[], None]] = {}
    while True:
        message = await said.get()
        if message is None:
            _log.error("the parent is gone: this worker finishes its answers and ends")
            signals.put_nowait(ORPHANED)
            return
        if isinstance(message, Drain):
            signals.put_nowait(signal.Signals(message.signal))
        elif isinstance(message, StandIn) and message.group not in standing_in:
            standing_in[message.group] = await server.stand_in(message.group)
        elif isinstance(message, StepBack):
            step_back = standing_in.pop(message.group, None)
            if step_back is not None:
                step_back()
