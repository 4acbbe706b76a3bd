"""Real worker processes on the bundled model, and the words to talk to them."""

import asyncio
import importlib.util
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from local_backend.backend import LocalBackend, LocalModelSpec
from local_backend.demo_model import DEMO_FILE

ENDLESS = {
    "type": "array",
    "minItems": 40,
    "maxItems": 40,
    "items": {"type": "string", "minLength": 400, "maxLength": 400},
}
"""A schema that keeps a model writing for seconds: no answer is shorter than 16,000 characters."""


class Request(Struct, frozen=True):
    """A WireRequest by shape."""

    url: str
    body: bytes
    stream: bool
    caller: str = ""


class Answer(Struct):
    """What came back."""

    status: int
    headers: dict[str, str]
    lines: list[dict[str, Any]]
    error: dict[str, Any]

    def text(self, choice: int = 0) -> str:
        return "".join(line["text"] for line in self.lines if line["t"] == "text" and line["choice"] == choice)

    def reasons(self) -> dict[int, str]:
        return {line["choice"]: line["reason"] for line in self.lines if line["t"] == "finish"}

    @property
    def usage(self) -> dict[str, int]:
        assert self.lines[-1]["t"] == "usage", self.lines[-1:]
        return self.lines[-1]

    def entries(self, choice: int = 0) -> list[dict[str, Any]]:
        return [
            entry
            for line in self.lines
            if line["t"] == "text" and line["choice"] == choice
            for entry in line.get("logprobs", [])
        ]


class Asker:
    """A backend and short ways to ask it."""

    def __init__(self, backend: LocalBackend, name: str = "demo") -> None:
        self.backend = backend
        self.name = name

    def request(
        self, content: str | list[dict[str, Any]], *, stream: bool = True, caller: str = "", **members: Any
    ) -> Request:
        messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
        body = {"model": self.name, "messages": messages, **members}
        return Request(f"local:{self.name}", json.dumps(body).encode(), stream, caller)

    async def open(self, content: str | list[dict[str, Any]], **members: Any) -> Any:
        return await self.backend.send(self.request(content, **members), connect_timeout_s=5)

    async def ask(self, content: str | list[dict[str, Any]], **members: Any) -> Answer:
        return await read_all(await self.open(content, **members))

    async def settled(self, condition: Callable[[Any], bool], limit_s: float = 5.0) -> Any:
        """The worker's figures once they satisfy `condition`."""
        async with asyncio.timeout(limit_s):
            while True:
                stats = await self.backend.stats(self.name)
                if condition(stats):
                    return stats
                await asyncio.sleep(0.002)


async def read_all(response: Any) -> Answer:
    data = b""
    while piece := await response.read():
        data += piece
    if response.status != 200:
        return Answer(response.status, dict(response.headers), [], json.loads(data)["error"])
    return Answer(200, dict(response.headers), [json.loads(line) for line in data.splitlines()], {})


@asynccontextmanager
async def running(home: Path, **members: Any) -> AsyncIterator[Asker]:
    spec = LocalModelSpec(
        **{"name": "demo", "file": "bundled", "slots": 4, "context_tokens": 2048, "load": "boot", **members}
    )
    backend = LocalBackend([spec], home)
    await backend.start()
    try:
        yield Asker(backend, spec.name)
    finally:
        await backend.aclose()


@pytest.fixture(scope="session")
def engine() -> None:
    """For what needs the local extra; tests/conftest.py says where it must be there."""
    if missing := [name for name in ("llama_cpp", "jinja2") if importlib.util.find_spec(name) is None]:
        pytest.skip(f"the local extra is not installed ({', '.join(missing)}): `make engine`")


@pytest.fixture
def run(engine: None, tmp_path: Path) -> Callable[..., Any]:
    """`async with run(slots=..) as demo`: a backend with one model."""
    if not DEMO_FILE.exists():
        pytest.skip("the bundled model is not in this tree")
    return lambda **members: running(tmp_path, **members)


@pytest.fixture
async def demo(run: Callable[..., Any]) -> AsyncIterator[Asker]:
    """The bundled model, ready."""
    async with run() as asker:
        await asker.backend.wait_ready("demo")
        yield asker


@pytest.fixture
def endless() -> dict[str, Any]:
    """Members of a request whose answer takes seconds."""
    return {"json_schema": ENDLESS, "temperature": 1.0, "seed": 1}


@pytest.fixture(scope="session")
def vocabulary(engine: None) -> Any:
    """The bundled model's tokens, in this process."""
    if not DEMO_FILE.exists():
        pytest.skip("the bundled model is not in this tree")
    from local_backend import llama  # noqa: PLC0415  # native code, only where a test wants it

    llama.open_library()
    model = llama.Model(str(DEMO_FILE))
    yield model.vocabulary
    model.close()
