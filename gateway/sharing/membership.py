"""Who this process is among those that share one Redis, and what it has to say to be one of them."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from gateway.sharing.lane import Command, Lane, LaneDownError, Link, ScriptError, Word
from gateway.sharing.scripts import DIGESTS, GONE, SCRIPTS

READY_WAIT_S: Final = 2.0
"""How long after the state was lost, or the start, requests wait for it before they are refused."""
_RUN_ID: Final = b"run_id:"


class Member:
    """One process's place among the others, over one Lane.

    A place is a name (which lasts over restarts), the boot (one process's life) and a generation (one connection's).
    Scripts answer only to the last generation of the boot that has the name, in the epoch that all know; whoever is not
    that any more joins anew, and says all that it has.

    Args:
        make: Connections.
        name: This replica's, different from all others'.
        boot: Different in each life of a process.
        nonce: Gives something nobody else will think of.
        prefix: Of all keys in Redis.
    """

    def __init__(
        self, make: Callable[[], Link], *, name: str, boot: str, nonce: Callable[[], str], prefix: str
    ) -> None:
        self.name = name
        self.prefix = prefix
        self.lane = Lane(make, self._greet, "state")
        self._boot = boot
        self._nonce = nonce
        self._generation = 0
        self._rest_ms = 0
        self._epoch = ""
        self._ready = asyncio.Event()
        self._ready_at_s = 0.0
        self.lane.on_down = self._ready.clear
        self.lane.on_up = self._begin_rest
        self.register: Callable[[Link, frozenset[str], bool], Awaitable[None]] = _nothing
        """Says all that this process has: over the link, with the accounts in which its name has something, and whether
        others have lost what they knew."""
        self.is_heir = False
        """Whether it takes the place of a process that did not take its leave."""
        self.rebuilds = 0
        """Epochs that this process has seen begin, the first included."""

    def command(self, script: str, *words: Word) -> Command:
        """A script's call by this member."""
        fence = (self._epoch, self.name, self._boot, str(self._generation))
        return "EVALSHA", DIGESTS[script], 1, self.prefix, *fence, *words

    def plain(self, script: str, *words: Word) -> Command:
        """A script's call by anybody."""
        return "EVALSHA", DIGESTS[script], 1, self.prefix, *words

    async def ask(self, script: str, *words: Word) -> list[Any]:
        """Run a script and wait as long as the lane does.

        Raises:
            LaneDownError: There was no answer, or this is no member any more; it joins anew then.
        """
        return self.checked(await asyncio.shield(self.lane.ask(self.command(script, *words))))

    def checked(self, answer: Any) -> list[Any]:
        """An answer, unless it says that this is no member any more.

        Raises:
            LaneDownError: It does.
        """
        if not isinstance(answer, list) or not answer or answer[0] == GONE:
            self.lane.reset("what was shared was lost, and is put together again")
            raise LaneDownError(self.lane.reason)
        return answer  # pyright: ignore[reportUnknownVariableType]  # of what the script gives

    @property
    def is_ready(self) -> bool:
        """Whether keys with a budget can be granted anything by asking."""
        return self._ready.is_set()

    def rest(self, rest_s: float) -> None:
        """Others may not have said what they have: ask for nothing meanwhile."""
        loop = asyncio.get_running_loop()
        self._ready.clear()
        self._ready_at_s = loop.time() + rest_s
        loop.call_later(rest_s, self._end_rest)

    def _begin_rest(self) -> None:
        self.rest(self._rest_ms / 1000)

    def _end_rest(self) -> None:
        if self.lane.up and asyncio.get_running_loop().time() >= self._ready_at_s - 0.001:
            self._ready.set()

    async def until_ready(self) -> bool:
        """Wait until it is ready, if that is likely to be soon."""
        now_s = asyncio.get_running_loop().time()
        until_s = self._ready_at_s if self.lane.up else self.lane.down_since_s
        try:
            async with asyncio.timeout(max(0.0, until_s + READY_WAIT_S - now_s)):
                await self._ready.wait()
        except TimeoutError:
            return False
        return True

    async def beat(self) -> None:
        """Say that this process is still there.

        Raises:
            LaneDownError: There was no answer, or it is no member any more.
        """
        await self.ask("beat")

    async def _greet(self, link: Link) -> None:
        """Join: take the name, say all that this process has, and learn when anything may be granted."""
        self._generation += 1
        info, *_ = await link.exchange([("INFO", "server"), *(("SCRIPT", "LOAD", text) for text in SCRIPTS.values())])
        run = _run_of(info)
        begin = self.plain("begin", self.name, self._boot, str(self._generation), run, self._nonce())
        (answer,) = await link.exchange([begin])
        if isinstance(answer, ScriptError):
            raise answer
        if answer[0] != b"ok":
            raise LaneDownError("another gateway has this one's name")
        epoch = str(answer[1], "ascii")
        self.is_heir = self.is_heir or answer[3] == 1
        is_new, self._epoch = epoch != self._epoch, epoch
        await self.register(link, frozenset(str(one, "utf-8") for one in answer[2]), is_new)
        (answer,) = await link.exchange([self.command("beat")])
        if isinstance(answer, ScriptError):
            raise answer
        if answer[0] == GONE:
            raise LaneDownError("what was shared was lost once more")
        self.rebuilds += is_new
        self.is_heir = False
        self._rest_ms = int(answer[1])


async def _nothing(_link: Link, _accounts: frozenset[str], _is_new: bool) -> None:  # noqa: FBT001 (as it is called)
    """Nothing to say."""


def _run_of(info: Any) -> str:
    """Which life of which Redis this is.

    Raises:
        ScriptError: It does not say.
    """
    if isinstance(info, bytes):
        for line in info.splitlines():
            if line.startswith(_RUN_ID):
                return str(line[len(_RUN_ID) :], "ascii", "replace").strip()
    raise ScriptError("Redis does not say its run_id")
