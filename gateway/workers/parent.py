"""The parent of all: holds the listening sockets, keeps owner and workers alive, and passes on what it is told to do.

It opens no file of MIXGATE_HOME but its lock, answers nobody and keeps no state, so that there is little it can fail
at. Each worker has a socket of its own among those that share the port, and the system gives each its part of the
connections. The parent keeps them all open: what was accepted for a worker that is gone is in none of its hands, but in
those of a sibling that stands in for it until it is back.
"""

import asyncio
import logging
import secrets
import signal
import socket
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from gateway.errors import ConfigError, ConfigProblem
from gateway.server.run import bind_sockets
from gateway.state.connection import StoreLock
from gateway.state.errors import StoreInUseError
from gateway.workers.child import KILL_AFTER_S, Child
from gateway.workers.control import Began, Drain, Ended, Finish, StandIn, Start, StepBack

RUN_FOLDER: Final = "run"
BACKLOG: Final = 2048
"""Connections that wait for one worker to accept them."""
LAST_WAIT_S: Final = 30.0
"""How long workers may take beyond what they give their last answers."""

_log = logging.getLogger("mixgate.workers")


class Parent:
    """Owner and workers, kept alive.

    Args:
        home: MIXGATE_HOME.
        config: The configuration's path.
        overrides: Settings given as flags.
        count: How many workers.
        groups: Listening sockets, a group for each worker.
        drain_s: How long running answers get at the end.
    """

    def __init__(
        self,
        home: Path,
        config: Path,
        overrides: Mapping[str, Any],
        groups: list[list[socket.socket]],
        drain_s: float,
    ) -> None:
        self._home = home
        self._config = config
        self._overrides = {name: str(value) for name, value in overrides.items()}
        self._groups = groups
        self._drain_s = drain_s
        self._era = secrets.token_hex(4)
        self._signals: asyncio.Queue[signal.Signals] = asyncio.Queue()
        self._changed = asyncio.Event()
        self._stand_ins: dict[int, Child] = {}
        self._begun = 0
        self._gate = asyncio.Event()
        self.owner = Child("owner", self._begin_owner, self._owner_ready, self._owner_ended)
        self.workers = [self._worker(place) for place in range(len(groups))]

    async def run(self, on_started: Callable[[str, int], None]) -> int:
        """Until a signal; gives the exit code.

        Args:
            on_started: Called once with address and port, when every worker is at work.
        """
        loop = asyncio.get_running_loop()
        running: dict[asyncio.Task[None], Child] = {}
        with hearing(loop, self._signals):
            running.update({asyncio.create_task(one.run()): one for one in (self.owner, *self.workers)})
            try:
                if await self._until(lambda: all(one.ready for one in self.workers), running):
                    on_started(*self._groups[0][0].getsockname()[:2])
                    await self._until(lambda: False, running)
                code = 2 if any(one.refused for one in running.values()) else 0
                await self._stop(running)
            finally:
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)
        return code

    async def _until(self, reached: Callable[[], bool], running: Mapping[asyncio.Task[None], Child]) -> bool:
        """Wait for something to become true. False where a signal comes, or a child will never be ready."""
        while not reached():
            if not self._signals.empty() or any(task.done() for task in running):
                return False
            self._changed.clear()
            heard = asyncio.ensure_future(self._signals.get())
            changed = asyncio.ensure_future(self._changed.wait())
            done, _ = await asyncio.wait({heard, changed, *running}, return_when=asyncio.FIRST_COMPLETED)
            changed.cancel()
            if heard in done:
                self._signals.put_nowait(heard.result())
                return False
            heard.cancel()
        return True

    async def _stop(self, running: Mapping[asyncio.Task[None], Child]) -> None:
        """Workers first, which finish their answers; then the owner, which writes down what they came to."""
        of_workers = {task for task, child in running.items() if child is not self.owner}
        for child in self.workers:
            child.stop()
            if not child.ready:
                child.kill()
        number = signal.SIGINT if self._signals.empty() else self._signals.get_nowait()
        # Theirs stay open a little longer, for a load balancer that has not noticed yet.
        for group in self._groups:
            for one in group:
                one.close()
        await self._drain(of_workers, number)
        self.owner.stop()
        self.owner.say(Finish())
        of_owner = [task for task, child in running.items() if child is self.owner]
        _, late = await asyncio.wait(of_owner, timeout=KILL_AFTER_S)
        if late:
            _log.error("the owner does not end, and is killed; what is missing is in the journals")
            self.owner.kill()

    async def _drain(self, tasks: set[asyncio.Task[None]], number: signal.Signals) -> None:
        """Tell the workers to finish, once more for each further signal, and wait for them."""
        loop = asyncio.get_running_loop()
        end_s = loop.time() + self._drain_s + LAST_WAIT_S
        finished = asyncio.gather(*tasks, return_exceptions=True)
        self._tell_workers(Drain(number))
        while not finished.done():
            heard = asyncio.ensure_future(self._signals.get())
            both: set[asyncio.Future[Any]] = {finished, heard}
            await asyncio.wait(both, timeout=max(0.0, end_s - loop.time()), return_when=asyncio.FIRST_COMPLETED)
            if heard.done():
                self._tell_workers(Drain(heard.result()))
                continue
            heard.cancel()
            if not finished.done():
                _log.error("workers do not end, and are killed; what they left is in their journals")
                end_s = loop.time() + LAST_WAIT_S
                for child in self.workers:
                    child.kill()

    def _tell_workers(self, message: Drain) -> None:
        for child in self.workers:
            child.say(message)

    def _begin_owner(self) -> Start:
        living = tuple(child.name for child in self.workers if child.name)
        return self._start("owner", f"owner-{self._era}", 0, living=living)

    def _start(self, role: Any, name: str, number: int, **more: Any) -> Start:
        return Start(
            role=role,
            name=name,
            number=number,
            workers=len(self._groups),
            config=str(self._config),
            overrides=self._overrides,
            **more,
        )

    def _worker(self, place: int) -> Child:
        def begin() -> Start:
            self._begun += 1
            name = f"w{place + 1}-{self._era}-{self._begun}"
            self.owner.say(Began(name))
            sockets = tuple(tuple(one.fileno() for one in group) for group in self._groups)
            return self._start("worker", name, place + 1, sockets=sockets)

        return Child(
            f"worker {place + 1}",
            begin,
            lambda: self._worker_ready(place),
            lambda name: self._gone(place, name),
            self._gate,
        )

    def _owner_ready(self) -> None:
        self._gate.set()
        self._changed.set()

    def _owner_ended(self, _name: str) -> None:
        self._changed.set()

    def _worker_ready(self, place: int) -> None:
        stand_in = self._stand_ins.pop(place, None)
        if stand_in is not None:
            stand_in.say(StepBack(place))
        for group, child in enumerate(self.workers):
            if not child.ready and child.starts > 1 and group not in self._stand_ins:
                # Nobody was there to stand in for it when it ended.
                self._stand_ins[group] = self.workers[place]
                self.workers[place].say(StandIn(group))
        self._changed.set()

    def _gone(self, place: int, name: str) -> None:
        """Another one accepts its connections, and the owner looks through what it left."""
        self.owner.say(Ended(name))
        gone = self.workers[place]
        orphans = [place, *(group for group, child in self._stand_ins.items() if child is gone)]
        ready = [child for child in self.workers if child.ready]
        for group in orphans:
            self._stand_ins.pop(group, None)
            if ready:
                self._stand_ins[group] = chosen = ready[group % len(ready)]
                chosen.say(StandIn(group))
        self._changed.set()


@contextmanager
def hearing(loop: asyncio.AbstractEventLoop, signals: "asyncio.Queue[signal.Signals]") -> Generator[None]:
    """Have the signals that end a service put there meanwhile."""
    heard = (signal.SIGTERM, signal.SIGINT)
    for number in heard:
        loop.add_signal_handler(number, signals.put_nowait, number)
    try:
        yield
    finally:
        for number in heard:
            loop.remove_signal_handler(number)


def listen(host: str, port: int, count: int) -> list[list[socket.socket]]:
    """Listening sockets on one port, a group for each worker; a group has one for each address of the host.

    Raises:
        ConfigError: Somebody else listens there, or nobody can.
    """
    # A port that may be shared looks free to whoever shares: asked for alone, it tells.
    alone = bind_sockets(host, port)
    chosen: int = alone[0].getsockname()[1]
    for one in alone:
        one.close()
    groups: list[list[socket.socket]] = []
    try:
        while len(groups) < count:
            groups.append(bind_sockets(host, chosen, shared=True))
        for one in (one for group in groups for one in group):
            one.listen(BACKLOG)
            one.setblocking(False)  # noqa: FBT003  # the socket API
    except BaseException:
        for one in (one for group in groups for one in group):
            one.close()
        raise
    return groups


@contextmanager
def only_one(home: Path) -> Generator[None]:
    """Be the only parent in a MIXGATE_HOME.

    Raises:
        ConfigError: There is another one, or the folder cannot be used.
    """
    folder = home / RUN_FOLDER
    lock = StoreLock(folder / "parent")
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        lock.take()
    except StoreInUseError:
        fix = "stop it, or give this one a MIXGATE_HOME of its own"
        raise ConfigError(
            (ConfigProblem("MIXGATE_HOME", f"another gateway has its workers in {home}.", fix),)
        ) from None
    except OSError as error:
        fix = "set MIXGATE_HOME to a folder that this user owns and can write"
        problem = ConfigProblem("MIXGATE_HOME", f"{folder} cannot be used: {error.strerror}.", fix)
        raise ConfigError((problem,)) from error
    try:
        yield
    finally:
        lock.release()
