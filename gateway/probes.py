"""Free looks at idle Endpoints: a provider's list of models or its `/health`, and the state of the local worker.

Never a billed request: nothing is asked that makes a model speak, and `/health` is asked without our key, for there are
gateways that try all their models when somebody with a key asks them for it.

What they find is a hint for health (`EndpointHealth.note_probe`): who looks down goes behind the others until a real
request or two better looks say otherwise. Nothing is opened and nothing closed by them.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from gateway.fleet import Fleet
from gateway.health import Health
from providers.base import Endpoint

if TYPE_CHECKING:
    import httpx

LOOK_EVERY_S: Final = 60.0
"""How often an idle provider is asked for its list of models."""
LOOK_JITTER: Final = 0.15
QUIET_S: Final = 60.0
"""Who was asked for real within this time needs no look."""
LOOK_TIMEOUT_S: Final = 5.0
"""For all of one look."""
LOOKS_AT_ONCE: Final = 8
TOO_MANY: Final = 429
LOCAL_EVERY_S: Final = 5.0
"""How often the local worker is looked at."""
LOCAL_VERDICTS: Final[Mapping[str, bool]] = {"ready": True, "crashed": False}
"""States of a local model that say something; one that is off, starting or refused is not asked anyway."""

_log = logging.getLogger("mixgate.health")


class LocalStatus(Protocol):
    """What is asked of a local model."""

    @property
    def name(self) -> str:
        """The id its provider knows it by."""
        ...

    @property
    def state(self) -> str:
        """In the worker's words: off, starting, ready, crashed, refused."""
        ...


class Prober:
    """Looks at what nobody asked for a while. One task, `run`, which ends when it is cancelled.

    Args:
        health: Is told what was seen.
        fleet: Gives what is configured, and off, at the moment.
        local_status: Gives the state of every local model.
        random: Draws from 0 up to 1, for jitter.
    """

    def __init__(
        self,
        health: Health,
        fleet: Callable[[], Fleet],
        local_status: Callable[[], Iterable[LocalStatus]],
        random: Callable[[], float],
    ) -> None:
        self._health = health
        self._fleet = fleet
        self._local_status = local_status
        self._random = random
        self._client: httpx.AsyncClient | None = None

    async def run(self) -> None:
        """Look, and wait, until cancelled."""
        loop = asyncio.get_running_loop()
        due_s = loop.time() + self._pause_s()
        try:
            while True:
                await asyncio.sleep(min(LOCAL_EVERY_S, max(due_s - loop.time(), 0.0)))
                self.look_at_local(loop.time())
                if loop.time() >= due_s:
                    await self.look_at_remote(loop.time())
                    due_s = loop.time() + self._pause_s()
        finally:
            await self.aclose()

    async def aclose(self) -> None:
        """Drop the connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    def look_at_local(self, now_s: float) -> None:
        """Tell health how each local model is."""
        fleet = self._fleet()
        states = {status.name: status.state for status in self._local_status()}
        for endpoint in fleet.catalogue.endpoints.values():
            verdict = LOCAL_VERDICTS.get(states.get(endpoint.upstream_model, "")) if endpoint.local else None
            if verdict is not None and self._health.of(endpoint.id).is_quiet(now_s, QUIET_S):
                self._health.of(endpoint.id).note_probe(verdict, now_s)

    async def look_at_remote(self, now_s: float) -> None:
        """Ask each provider with an idle Endpoint for its list of models, once, and tell health of all those."""
        fleet = self._fleet()
        idle: dict[str, list[Endpoint]] = {}
        for endpoint in fleet.catalogue.endpoints.values():
            if self._is_worth_a_look(endpoint, fleet, now_s):
                idle.setdefault(endpoint.provider, []).append(endpoint)
        if not idle:
            return
        client = self._client
        if client is None:
            client = self._client = await asyncio.to_thread(_open_client)
        permits = asyncio.Semaphore(LOOKS_AT_ONCE)
        async with asyncio.TaskGroup() as group:
            for endpoints in idle.values():
                group.create_task(self._look_at(endpoints, fleet, client, permits))

    def _is_worth_a_look(self, endpoint: Endpoint, fleet: Fleet, now_s: float) -> bool:
        provider = fleet.catalogue.providers[endpoint.provider]
        upstream = fleet.upstreams.get(endpoint.id)
        # A signer's or a forward proxy's way is not ours: what we would see says nothing of it.
        reachable = upstream is not None and upstream.signer is None and provider.proxy is None
        if not reachable or endpoint.local or provider.transport == "litellm" or endpoint.state == "retired":
            return False
        return endpoint.id not in fleet.off and self._health.of(endpoint.id).is_quiet(now_s, QUIET_S)

    async def _look_at(
        self, endpoints: list[Endpoint], fleet: Fleet, client: "httpx.AsyncClient", permits: asyncio.Semaphore
    ) -> None:
        first = endpoints[0]
        async with permits:
            verdict = await _look(client, first.base_url, fleet.upstreams[first.id].headers)
        if verdict is None:
            return
        now_s = asyncio.get_running_loop().time()
        for endpoint in endpoints:
            health = self._health.of(endpoint.id)
            if health.is_quiet(now_s, QUIET_S):
                health.note_probe(verdict, now_s)

    def _pause_s(self) -> float:
        return LOOK_EVERY_S * (1.0 + LOOK_JITTER * (2.0 * self._random() - 1.0))


def _open_client() -> "httpx.AsyncClient":
    """In a thread: the import and the certificates take a tenth of a second that running requests do not have."""
    import httpx  # noqa: PLC0415 (the first look comes a minute after the start, which must not wait for it)

    return httpx.AsyncClient(
        timeout=LOOK_TIMEOUT_S,
        follow_redirects=False,
        trust_env=False,
        headers={"accept": "application/json", "accept-encoding": "identity"},
    )


async def _look(client: "httpx.AsyncClient", base_url: str, headers: Mapping[str, str]) -> bool | None:
    """Whether a provider is there; None where its answers say nothing about that.

    A list, or part of one, is good. An error of its own, a redirect, silence, or no connection is bad. Any other 4xx
    says that there is no such list, or not for this key, which is for a real request to find out; then its `/health` is
    asked, if it has one. Whoever says that we ask too much is not asked another thing.
    """
    try:
        async with asyncio.timeout(LOOK_TIMEOUT_S):
            status = await _ask(client, f"{base_url}/models", headers)
            if status is None or status < 400 or status >= 500:
                return status is not None and status < 300
            if status == TOO_MANY:
                return None
            return _healthy(await _ask(client, health_url(base_url), {}))
    except TimeoutError:
        return False


def _healthy(status: int | None) -> bool | None:
    """What the status of `/health` says. A redirect leads to something else that has this name, a web page maybe."""
    if status is None or status >= 500:
        return False
    return True if status < 300 else None


def health_url(base_url: str) -> str:
    """Where a server says how it is: at its root, wherever below it the API is."""
    parts = urlsplit(base_url)
    return f"{parts.scheme}://{parts.netloc}/health"


async def _ask(client: "httpx.AsyncClient", url: str, headers: Mapping[str, str]) -> int | None:
    """The status of an answer whose body nobody reads; None where there is none."""
    import httpx  # noqa: PLC0415 (loaded with the client)

    try:
        async with client.stream("GET", url, headers=dict(headers)) as response:
            return response.status_code
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        # Its words could repeat what was sent; its class says enough.
        _log.debug("a look at %s failed: %s", url, type(error).__name__)
        return None
