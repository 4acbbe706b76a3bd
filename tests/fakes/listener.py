"""What a client was told: one streamed chat completion, read byte by byte and judged as strictly as it can be."""

import json
import os
import time
from dataclasses import dataclass, field
from typing import Any

import httpx

FULL = os.environ.get("MIXGATE_TEST_FULL") == "1"
"""Real timings and the counts as written."""


@dataclass
class Told:
    """All of one answer."""

    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    payloads: list[str] = field(default_factory=list)
    chunks: list[dict[str, Any]] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    """When each payload came, from the moment of asking."""
    pings: int = 0
    elapsed_s: float = 0.0
    body: dict[str, Any] = field(default_factory=dict)
    """Of an answer that is no stream."""

    @property
    def text(self) -> str:
        return "".join(choice["delta"].get("content") or "" for choice in self._choices())

    @property
    def finish_reasons(self) -> list[str]:
        return [choice["finish_reason"] for choice in self._choices() if choice["finish_reason"]]

    @property
    def complete(self) -> bool:
        """It ended as a success: a finish reason, the end mark, no error."""
        return bool(self.finish_reasons) and self.ended and self.error is None

    @property
    def ended(self) -> bool:
        return self.payloads[-1:] == ["[DONE]"] and self.payloads.count("[DONE]") == 1

    @property
    def error(self) -> dict[str, Any] | None:
        if self.body:
            return self.body.get("error")
        errors = [one["error"] for one in self.chunks if "error" in one]
        assert len(errors) <= 1
        return errors[0] if errors else None

    @property
    def usage(self) -> dict[str, Any] | None:
        counted = [one["usage"] for one in self.chunks if one.get("usage")]
        assert len(counted) <= 1
        return counted[0] if counted else None

    @property
    def notes(self) -> dict[str, Any]:
        """The member `mixgate` of the last chunk; no other chunk has one."""
        assert all("mixgate" not in one for one in self.chunks[:-1])
        return self.chunks[-1].get("mixgate", {}) if self.chunks else {}

    @property
    def attempts(self) -> int:
        return int(self.headers.get("x-mixgate-attempts", "0"))

    def _choices(self) -> list[dict[str, Any]]:
        return [choice for one in self.chunks for choice in one.get("choices", ())]

    def check_form(self) -> None:
        """What holds for every stream: one id, one role, nothing behind the end, text only before the finish."""
        assert self.ended, self.payloads[-3:]
        named = [one for one in self.chunks if "id" in one]
        assert len({one["id"] for one in named}) <= 1
        choices = self._choices()
        assert sum("role" in choice["delta"] for choice in choices) == (1 if choices else 0)
        finished = [place for place, choice in enumerate(choices) if choice["finish_reason"]]
        assert len(finished) == (0 if self.error else 1)
        assert not any(choice["delta"].get("content") for place in finished for choice in choices[place + 1 :])


async def listen(
    client: httpx.AsyncClient, body: dict[str, Any], path: str = "/v1/chat/completions", **headers: str
) -> Told:
    """Ask, and read all of the answer. A stream's form is judged."""
    told = Told()
    began_s = time.monotonic()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with client.stream("POST", path, json=body, headers=named) as response:
        told.status = response.status_code
        told.headers = dict(response.headers)
        if not response.headers.get("content-type", "").startswith("text/event-stream"):
            told.body = json.loads(await response.aread())
        else:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    told.payloads.append(line[6:])
                    told.times_s.append(time.monotonic() - began_s)
                    if line != "data: [DONE]":
                        told.chunks.append(json.loads(line[6:]))
                elif line.startswith(":"):
                    told.pings += 1
                else:
                    assert not line, line
    told.elapsed_s = time.monotonic() - began_s
    if not told.body:
        told.check_form()
    return told
