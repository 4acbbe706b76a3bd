"""One request being answered in the worker: what the engine reports about it, as JSON lines."""

import asyncio
from typing import Final

import msgspec
from msgspec import Struct

from local_backend.errors import LocalError
from local_backend.frames import Refusal
from local_backend.jobs import Failed, Finished, Happening, Started, TextOut
from local_backend.lines import ErrorLine, FinishLine, TextLine, UsageLine, refusal_of

TEXT_EVERY_S: Final = 0.01
"""How often a running answer is sent on. Tokens that come faster go out together: nobody reads a hundred pieces a
second, and each costs the gateway, whose remote requests wait for it. An answer's first text and its end never wait."""

_encoder = msgspec.json.Encoder()


class Exchange:
    """One request's answer.

    Args:
        number: The exchange's number on the socket, which is also its Job's id.
        whole: The answer goes out in one piece, its text joined per choice.
        caller: Whose request it is.
    """

    def __init__(self, number: int, *, whole: bool, caller: str = "") -> None:
        self.number = number
        self.caller = caller
        self.choices = 1
        self.logprobs = False
        self.input_tokens = 0
        self.queued = False
        """The engine has it."""
        self.waiting = False
        """The gateway was told that it waits for a slot."""
        self.deadline: asyncio.TimerHandle | None = None
        self.started = False
        self.over = False
        """Nothing may follow what was taken."""
        self.lines = bytearray()
        """Ready to be sent."""
        self._whole = whole
        self._written = False
        self._joined: dict[int, TextLine] = {}
        """What each choice said since the last take, on one line."""
        self._finished = 0
        self._output_tokens = 0
        self._cached_tokens = 0

    def note(self, happening: Happening) -> Refusal | None:
        """Take a report of the engine. A Refusal is a failure before anything was sent, and ends the exchange."""
        match happening:
            case Started():
                self.started = True
                self._cached_tokens = happening.cached_tokens
            case TextOut():
                self._add_text(happening)
            case Finished():
                self._add_finish(happening)
            case Failed():
                return self._fail(happening.error)
        return None

    @property
    def hasty(self) -> bool:
        """Nothing of it was sent yet, or all of it is there."""
        return self.over or not self._written

    def take(self) -> bytes:
        """The lines to send now, if any."""
        if self._whole and not self.over:
            return b""
        for line in self._joined.values():
            self._add(line)
        self._joined.clear()
        lines = bytes(self.lines)
        self.lines.clear()
        self._written = self._written or bool(lines)
        return lines

    def _add_text(self, out: TextOut) -> None:
        joined = self._joined.get(out.choice)
        if joined is None:
            self._joined[out.choice] = TextLine(out.text, out.choice, out.entries if self.logprobs else None)
            return
        joined.text += out.text
        if joined.logprobs is not None:
            joined.logprobs += out.entries

    def _add_finish(self, finished: Finished) -> None:
        joined = self._joined.pop(finished.choice, None)
        if joined is not None:
            self._add(joined)
        self._add(FinishLine(finished.choice, finished.reason))
        self._finished += 1
        self._output_tokens += finished.output_tokens
        if self._finished == self.choices:
            self._add(UsageLine(self.input_tokens, self._output_tokens, self._cached_tokens))
            self.over = True

    def _fail(self, error: LocalError) -> Refusal | None:
        self.over = True
        if not self._written:
            return refusal_of(error)
        self._add(ErrorLine(error.status, error.code, error.message, error.retry_after_s))
        return None

    def _add(self, line: Struct) -> None:
        self.lines += _encoder.encode(line)
        self.lines += b"\n"
