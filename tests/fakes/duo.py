"""Two or more scripted providers behind one gateway, asked in a fixed order: the stage of the failure scenarios."""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from gateway.attempts import Limits
from tests.fakes.gateway import Running, running_gateway
from tests.fakes.listener import FULL
from tests.fakes.scripted import Script, Scripted, scripted

CAPABILITIES = ("system", "tools", "json_object", "json_schema", "logprobs", "multiple_choices")
PREFILLING = (*CAPABILITIES, "prefill")


@dataclass(frozen=True)
class Place:
    """One provider of a configuration."""

    url: str
    dialect: str = "openai"
    serves: str = "m"
    context_tokens: int = 32_768
    capabilities: tuple[str, ...] = CAPABILITIES
    price: str = "{input: 1, output: 2}"
    more: str = ""


def config_of(*places: Place, route: str = "policy: ordered", gateway: str = "") -> str:
    """Providers `p0`, `p1`, ... with one Model `up` each, and the Route `m` over them in that order."""
    lines = [gateway, "providers:"]
    for number, place in enumerate(places):
        lines += [
            f"  p{number}:",
            f"    dialect: {place.dialect}",
            f"    base_url: {place.url}",
            *([f"    {place.more}"] if place.more else []),
            "    models:",
            "      up:",
            f"        serves: {place.serves}",
            f"        context_tokens: {place.context_tokens}",
            f"        price: {place.price}",
            f"        capabilities: [{', '.join(place.capabilities)}]",
        ]
    endpoints = ", ".join(f"p{number}/up" for number in range(len(places)))
    return "\n".join([*lines, "routes:", f"  m: {{{route}, endpoints: [{endpoints}]}}", ""])


def shortened() -> Limits:
    """Limits of a tenth of a second where the real ones are ten; the real ones under MIXGATE_TEST_FULL."""
    return Limits() if FULL else Limits(first_token_timeout_s=0.6, idle_timeout_s=0.6, after_finish_timeout_s=0.6)


@dataclass
class Stage:
    """A gateway and the providers behind it."""

    running: Running
    providers: tuple[Scripted, ...]

    @property
    def tries(self) -> tuple[int, ...]:
        """How many requests each provider saw."""
        return tuple(len(provider.calls) for provider in self.providers)


@asynccontextmanager
async def stage(
    folder: Path,
    *scripts: Script | list[Script],
    limits: Limits | None = None,
    route: str = "policy: ordered",
    places: Mapping[int, Place] | None = None,
    capabilities: tuple[str, ...] = CAPABILITIES,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[Stage]:
    """One provider for each script, or list of scripts in turn. `places` says where one differs; its url is filled."""
    async with AsyncExitStack() as stack:
        providers = []
        for script in scripts:
            turns = script if isinstance(script, list) else [script]
            providers.append(await stack.enter_async_context(scripted(*turns)))
        rows = []
        for number, provider in enumerate(providers):
            place = (places or {}).get(number, Place("", capabilities=capabilities))
            rows.append(Place(**{**place.__dict__, "url": place.url or provider.base_url}))
        config = config_of(*rows, route=route)
        running = await stack.enter_async_context(running_gateway(config, folder, env, limits=limits or shortened()))
        yield Stage(running, tuple(providers))


def fan_config(urls: Mapping[str, str], good: Place, *, route: str = "policy: ordered", more: str = "") -> str:
    """For each name a Route of that name: a provider of its own at that URL, then the one good provider for all.

    So each request meets an Endpoint with no past, and what failed before does not decide where it goes.
    """
    lines = ["providers:", "  good:", f"    dialect: {good.dialect}"]
    lines += [f"    base_url: {good.url}"] if good.url else []
    lines += [f"    {good.more}"] if good.more else []
    row = [
        f"        context_tokens: {good.context_tokens}",
        "        price: {input: 1, output: 2}",
        f"        capabilities: [{', '.join(good.capabilities)}]",
    ]
    lines += ["    models:", "      up:", f"        serves: {good.serves}", *row, *([more] if more else [])]
    for name, url in urls.items():
        lines += [f"  {name}:", "    dialect: openai", f"    base_url: {url}", "    models:", "      up:"]
        lines += [f"        serves: {name}-only", *row]
    lines.append("routes:")
    lines += [f"  {name}: {{{route}, endpoints: [{name}/up, good/up]}}" for name in urls]
    return "\n".join([*lines, ""])
