"""Starts the server, keeps its limits, and takes it down without breaking an answer.

What happens on SIGTERM: readiness is over at once; for `drain_lag_s` everything is still served, because a load
balancer needs that long to notice; then the sockets close, idle connections end and running answers have `drain_s` to
finish; then `Lifecycle.pass_deadline` has the application end them in-band; then what is left is cut. A second signal
leaves SECOND_SIGNAL_S in all. Ctrl-C skips the lag: there is no load balancer at a terminal.
"""

import asyncio
import errno
import gc
import logging
import os
import resource
import signal
import socket
from collections.abc import Callable, Coroutine, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import uvloop
from msgspec import Struct
from uvicorn.config import Config
from uvicorn.server import Server, ServerState

from gateway.errors import ConfigError, ConfigProblem
from gateway.server.lifecycle import Lifecycle
from gateway.server.limits import DEFAULT_LIMITS, Limits
from gateway.server.protocol import EdgeProtocol
from gateway.server.scope import App
from gateway.server.state import EdgeState
from gateway.server.tls import Certificate

LAST_WORDS_S = 5.0
"""After the drain limit: how long the application has to end its answers in-band."""
SECOND_SIGNAL_S = 5.0
SECOND_LAST_WORDS_S = 2.0
"""The part of SECOND_SIGNAL_S that is left for last words."""
OPEN_FILES_WANTED = 65536
PORT_MAX = 65535
DRAIN_LOOK_S = 0.05
CERTIFICATE_LOOK_S = 2.0
"""How often it is looked whether there is a new certificate."""
GC_THRESHOLD = 10_000
"""Objects made before the youngest are looked through; the default of 700 is several times per request under load."""
_log = logging.getLogger("mixgate.server")


class ServerSettings(Struct, frozen=True):
    """Where to listen and how to stop."""

    host: str = "127.0.0.1"
    port: int = 8080
    """0 lets the system choose; `on_started` learns which."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    limits: Limits = DEFAULT_LIMITS
    drain_lag_s: float = 5.0
    drain_s: float = 120.0
    backlog: int = 2048
    inherited: tuple[tuple[int, ...], ...] = ()
    """Sockets that another process made and that listen already, by descriptor: then `host` and `port` say nothing.
    One group is this process's own, the others it can stand in for."""
    own: int = 0
    """Which one is its own."""


def bind_sockets(host: str, port: int, *, shared: bool = False) -> list[socket.socket]:
    """Open the listening sockets for a host name or address.

    Args:
        host: Where.
        port: 0 lets the system choose.
        shared: Whether several may listen there, of which the system gives each its part of the connections.

    Raises:
        ConfigError: The port is taken or forbidden, or the host is not one of this machine's.
    """
    if not 0 <= port <= PORT_MAX:
        problem = ConfigProblem("gateway.port", f"{port} is no port.", f"choose one from 1 to {PORT_MAX}")
        raise ConfigError((problem,))
    sockets: list[socket.socket] = []
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, kind, proto, _, address in dict.fromkeys(infos):
            # With port 0 and several addresses the first one's choice holds for all.
            chosen = sockets[0].getsockname()[1] if sockets else port
            sock = socket.socket(family, kind, proto)
            sockets.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if shared:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            sock.bind((address[0], chosen, *address[2:]))
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError((_explain_bind(host, port, error),)) from error
    return sockets


def _explain_bind(host: str, port: int, error: OSError) -> ConfigProblem:
    where = "gateway.host, gateway.port"
    if isinstance(error, socket.gaierror):
        return ConfigProblem(where, f"{host!r} is not a host name or address known here.", "use 127.0.0.1 or 0.0.0.0")
    if error.errno == errno.EADDRINUSE:
        return ConfigProblem(
            where,
            f"Port {port} on {host} is in use by another program.",
            f"stop that program, or choose another port: --port {port + 1 if port < PORT_MAX else 8080}",
        )
    if error.errno == errno.EACCES:
        return ConfigProblem(where, f"Port {port} may be opened by root only.", "use a port of 1024 or above")
    if error.errno == errno.EADDRNOTAVAIL:
        return ConfigProblem(where, f"{host} is no address of this machine.", "use 127.0.0.1 or 0.0.0.0")
    return ConfigProblem(
        where, f"Cannot listen on {host} port {port}: {error.strerror}.", "choose another host or port"
    )


class EdgeServer(Server):
    """uvicorn's server with our protocol, our signals and our way of stopping.

    Args:
        app: A raw ASGI application; gets only `http` scopes.
        settings: Where to listen, the limits, and how to stop.
        lifecycle: Shared with the application.
        signals: Where another process's word to stop comes in; None: this process hears signals itself.
    """

    def __init__(
        self,
        app: App,
        settings: ServerSettings,
        lifecycle: Lifecycle,
        signals: asyncio.Queue[signal.Signals] | None = None,
    ) -> None:
        super().__init__(
            Config(
                app=app,
                http=cast("type[asyncio.Protocol]", EdgeProtocol),
                ws="none",
                lifespan="off",
                interface="asgi3",
                loop="none",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                backlog=settings.backlog,
            )
        )
        self.settings = settings
        self.lifecycle = lifecycle
        self.edge = EdgeState(lifecycle, settings.limits)
        self.server_state = cast("ServerState", self.edge)
        self.servers = []
        self._certificate: Certificate | None = None
        self._is_told = signals is not None
        self._signals: asyncio.Queue[signal.Signals] = signals or asyncio.Queue()

    async def run_until_signal(self, on_started: Callable[[str, int], None]) -> None:
        """Serve until a signal, then drain; returns when everything is closed."""
        loop = asyncio.get_running_loop()
        self._load_config()
        settings = self.settings
        sockets = self._inherited(settings.own) if settings.inherited else bind_sockets(settings.host, settings.port)
        self.lifespan = self.config.lifespan_class(self.config)
        sweeping = loop.create_task(self._sweep_forever())
        try:
            with self._listen_to_signals(loop):
                await self.startup(sockets=sockets)
                self.lifecycle.start()
                _quiet_garbage_collection()
                on_started(*sockets[0].getsockname()[:2])
                await self._drain(await self._signals.get())
        finally:
            sweeping.cancel()
            for listener in self.servers:
                listener.close()

    def _load_config(self) -> None:
        self.config.load()
        cert, key = self.settings.tls_cert, self.settings.tls_key
        if cert is not None and key is not None:
            self._certificate = Certificate(cert, key)
            self.config.ssl = self._certificate.context

    @contextmanager
    def _listen_to_signals(self, loop: asyncio.AbstractEventLoop) -> Generator[None]:
        heard = () if self._is_told else (signal.SIGTERM, signal.SIGINT)
        for number in heard:
            loop.add_signal_handler(number, self._signals.put_nowait, number)
        try:
            yield
        finally:
            for number in heard:
                loop.remove_signal_handler(number)

    async def _sweep_forever(self) -> None:
        look_at_s = self.edge.now_s
        while True:
            await asyncio.sleep(self.settings.limits.sweep_s)
            self.edge.sweep()
            if self._certificate is not None and self.edge.now_s >= look_at_s:
                look_at_s = self.edge.now_s + CERTIFICATE_LOOK_S
                await asyncio.to_thread(self._certificate.refresh)

    async def _drain(self, first: signal.Signals) -> None:
        """The steps of the module's description, one after the other."""
        running = len(self.edge.tasks)
        _log.info(
            "%s: draining, %d requests running; once more leaves them %.0f s", first.name, running, SECOND_SIGNAL_S
        )
        self.lifecycle.begin_drain()
        lag_s = 0.0 if first is signal.SIGINT else self.settings.drain_lag_s
        last_words_s = LAST_WORDS_S
        hurry = await self._hear_signal_within(lag_s)
        self._stop_listening()
        if not hurry:
            hurry = await self._finish_within(self.settings.drain_s)
        if hurry:
            last_words_s = SECOND_LAST_WORDS_S
            hurry = await self._finish_within(SECOND_SIGNAL_S - SECOND_LAST_WORDS_S)
        if self._busy():
            self.lifecycle.pass_deadline()
            await self._finish_within(last_words_s)
        await self._cut()

    async def stand_in(self, group: int) -> Callable[[], None]:
        """Accept the connections of another inherited group too, until what this gives is called."""
        if not self.lifecycle.accepting:
            return lambda: None
        kept = self.servers
        # uvicorn adds nothing to what there is: it makes the list anew.
        await self.startup(sockets=self._inherited(group))
        added = self.servers
        self.servers = [*kept, *added]

        def stop() -> None:
            for listener in added:
                listener.close()
            self.servers = [one for one in self.servers if one not in added]

        return stop

    def _inherited(self, group: int) -> list[socket.socket]:
        return [socket.socket(fileno=os.dup(one)) for one in self.settings.inherited[group]]

    def _stop_listening(self) -> None:
        self.lifecycle.stop_accepting()
        for descriptor in (one for group in self.settings.inherited for one in group):
            # Else connections would wait for a process that takes no more.
            os.close(descriptor)
        for listener in self.servers:
            listener.close()
        for connection in self.edge.open_connections():
            connection.shutdown()

    def _busy(self) -> bool:
        return bool(self.edge.tasks or self.edge.connections)

    async def _hear_signal_within(self, seconds: float) -> bool:
        """Whether another signal comes within so many seconds."""
        try:
            await asyncio.wait_for(self._signals.get(), seconds)
        except TimeoutError:
            return False
        return True

    async def _finish_within(self, seconds: float) -> bool:
        """Wait until nothing runs any more, at most so long. True when another signal cut the wait short."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + seconds
        while self._busy() and (left_s := end_s - loop.time()) > 0:
            # A drain is rare and its steps are short: looking now and then is simpler than a signal from every request.
            if await self._hear_signal_within(min(DRAIN_LOOK_S, left_s)):
                return True
        return False

    async def _cut(self) -> None:
        """End what would not end."""
        tasks = list(self.edge.tasks)
        if tasks:
            _log.warning("%d requests did not end in time and are cut", len(tasks))
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=1.0)
        for connection in self.edge.open_connections():
            connection.abort()


def _quiet_garbage_collection() -> None:
    """Take what start-up made out of the collector's sight, and look less often at the rest."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD, 20, 20)


def raise_open_file_limit() -> None:
    """A thousand slow clients hold a thousand files; the usual soft limit of 1,024 would end the service first."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


async def serve(
    app: App,
    settings: ServerSettings,
    lifecycle: Lifecycle,
    on_started: Callable[[str, int], None],
    signals: asyncio.Queue[signal.Signals] | None = None,
) -> int:
    """Serve `app` until SIGTERM or SIGINT and drain.

    Args:
        app: A raw ASGI application; gets only `http` scopes.
        settings: Where to listen, the limits, and how to stop.
        lifecycle: Shared with the application, which answers `/readyz` by it.
        on_started: Called once with the address and port that were bound, when connections are accepted.
        signals: Where whoever hears them already puts them; None: nobody does.

    Returns:
        The exit code of the process: 0.

    Raises:
        ConfigError: Cannot listen there.
    """
    raise_open_file_limit()
    await EdgeServer(app, settings, lifecycle, signals).run_until_signal(on_started)
    return 0


def run(main: Coroutine[Any, Any, int]) -> int:
    """Run the whole program's coroutine on uvloop."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main)
