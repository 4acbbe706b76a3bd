"""A whole gateway on a real socket, in the test's own event loop."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from gateway.app import Gateway
from gateway.attempts import Limits
from gateway.config.load import load
from gateway.server.run import EdgeServer, ServerSettings


@dataclass
class Running:
    """A gateway that listens."""

    url: str
    """`http://127.0.0.1:PORT`, without a path."""
    gateway: Gateway
    client: httpx.AsyncClient
    """Talks to it."""

    def forget(self) -> None:
        """Hold nothing against any provider of what it did so far."""
        self.gateway.health.keep(())


@asynccontextmanager
async def running_gateway(
    config: str,
    folder: Path,
    env: Mapping[str, str] | None = None,
    *,
    limits: Limits | None = None,
    drain_s: float = 2.0,
) -> AsyncIterator[Running]:
    """Serve the YAML text `config` while the block runs; `folder` is its MIXGATE_HOME and holds the file."""
    path = folder / "providers.yaml"
    path.write_text(config)
    gateway = Gateway(load(path, env or {}), folder / "home", limits)
    await gateway.start()
    server = EdgeServer(
        gateway.application, ServerSettings(port=0, drain_lag_s=0.0, drain_s=drain_s), gateway.lifecycle
    )
    started: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        server.run_until_signal(lambda host, port: started.set_result(f"http://{host}:{port}"))
    )
    await asyncio.wait({serving, started}, return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    url = started.result()
    async with httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as client:
        try:
            yield Running(url, gateway, client)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            await serving
            await gateway.aclose()


CAPABLE = "{system: true, tools: true, json_object: true, json_schema: true, logprobs: true}"


def openai_config(*base_urls: str, policy: str = "ordered", capabilities: str = CAPABLE, rescue: bool = True) -> str:
    """A configuration with one `openai` provider per URL, all serving the Model `m` in that order."""
    lines = ["providers:"]
    for place, url in enumerate(base_urls):
        lines += [
            f"  p{place}:",
            "    dialect: openai",
            f"    base_url: {url}",
            "    models:",
            "      up:",
            "        serves: m",
            "        context_tokens: 32768",
            "        price: {input: 1, output: 2}",
            f"        capabilities: {capabilities}",
        ]
    endpoints = ", ".join(f"p{place}/up" for place in range(len(base_urls)))
    more = "" if rescue else ", rescue: false"
    return "\n".join([*lines, "routes:", f"  m: {{policy: {policy}, endpoints: [{endpoints}]{more}}}", ""])


def chat(text: str = "hi", **members: object) -> dict[str, object]:
    """A chat request for the Model `m`."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], **members}
