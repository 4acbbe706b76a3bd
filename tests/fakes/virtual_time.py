"""An event loop whose clock jumps to the next timer instead of waiting for it: hours pass in no time, in order."""

import asyncio
from collections.abc import Coroutine
from typing import Any


class VirtualClockLoop(asyncio.SelectorEventLoop):
    """Time is what the timers say. Nothing else may be waited for: with no timer left a wait would never end."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 1000.0
        poll = self._selector.select  # type: ignore[attr-defined]

        def select(timeout: float | None) -> Any:
            if timeout is None:
                raise RuntimeError("everything waits and no timer is set: this would hang")
            self._now_s += max(0.0, timeout)
            return poll(0)

        self._selector.select = select  # type: ignore[attr-defined]

    def time(self) -> float:
        return self._now_s


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run to completion in virtual time."""
    with asyncio.Runner(loop_factory=VirtualClockLoop) as runner:
        return runner.run(coroutine)
