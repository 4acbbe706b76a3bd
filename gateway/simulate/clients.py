"""What clients see: one task for each request, and what came of it."""

import asyncio
from typing import Literal

from msgspec import Struct

from gateway.answer import Answer
from gateway.attempts import Hints
from gateway.bill import Origin
from gateway.engine import Engine
from gateway.fleet import Fleet
from gateway.routing.candidate import Plan
from gateway.simulate.texts import request_of
from gateway.simulate.world import Job
from providers.errors import MixgateError
from providers.messages import CONTENT_EVENTS, AnswerFailed, ChoiceFinished, TextDelta, ToolCallDelta

Ending = Literal["answered", "failed", "left"]


class Seen(Struct):
    """What one client saw, and what the gateway says of it."""

    job: Job
    started_s: float
    """By the loop's clock."""
    text: str = ""
    """Text, or the arguments of a tool call."""
    endings: list[Ending] = []
    """There must be exactly one."""
    finishes: int = 0
    """Finish reasons."""
    error: MixgateError | None = None
    first_s: float | None = None
    ended_s: float = 0.0
    answer: Answer | None = None
    late: bool = False
    """Something came behind the end."""

    @property
    def ending(self) -> Ending | None:
        """How it ended."""
        return self.endings[0] if self.endings else None

    @property
    def plan(self) -> Plan | None:
        """Who was to be asked."""
        return None if self.answer is None else self.answer.plan


class Client:
    """Asks one thing, reads until the end or until it has had enough."""

    def __init__(self, job: Job, engine: Engine, fleet: Fleet, loop: asyncio.AbstractEventLoop) -> None:
        self.seen = Seen(job, loop.time(), endings=[])
        self._engine = engine
        self._fleet = fleet
        self._loop = loop
        self.task = loop.create_task(self._run(), name=f"request {job.number}")
        self._leaving: asyncio.TimerHandle | None = None
        if job.leaves_after_s is not None:
            self._leaving = loop.call_later(job.leaves_after_s, self.task.cancel)

    async def _run(self) -> None:
        seen, job = self.seen, self.seen.job
        hints = Hints(total_timeout_s=job.deadline_s, session=job.session)
        try:
            seen.answer = answer = await self._engine.answer(
                request_of(job),
                self._fleet,
                hints=hints,
                origin=Origin(caller=f"caller-{job.caller}", generation_id=str(job.number)),
                task=self.task,
            )
            await self._read(answer)
            seen.endings.append("answered")
            seen.late = bool(await answer.next())
        except MixgateError as error:
            error.__traceback__ = None  # its frames would keep all of this alive until somebody collects garbage
            seen.error = error
            seen.endings.append("failed")
        except asyncio.CancelledError:
            if self._leaving is None or self._leaving.when() > self._loop.time():
                raise  # nobody but the client cancels this task
            seen.endings.append("left")
        finally:
            if seen.answer is not None:
                seen.answer.close()
            if self._leaving is not None:
                self._leaving.cancel()
            seen.ended_s = self._loop.time()

    async def _read(self, answer: Answer) -> None:
        seen = self.seen
        parts: list[str] = []
        try:
            while not answer.complete:
                events = await answer.next()
                if not events:
                    break
                for event in events:
                    if isinstance(event, TextDelta):
                        parts.append(event.text)
                    elif isinstance(event, ToolCallDelta):
                        parts.append(event.arguments)
                    elif isinstance(event, ChoiceFinished):
                        seen.finishes += 1
                    seen.late = seen.late or isinstance(event, AnswerFailed)
                if seen.first_s is None and any(isinstance(event, CONTENT_EVENTS) for event in events):
                    seen.first_s = self._loop.time()
        finally:
            seen.text = "".join(parts)
