"""Where gateways keep what they share: a Postgres for the ledger and the keys, a Redis for what changes fast."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

from msgspec import Struct
from pydantic import AfterValidator, Field

from gateway.config.fields import Reference, refuse
from gateway.config.secrets import Secret, resolve, show
from gateway.config.section import Section
from gateway.errors import ConfigProblem

LEASE_EXTRA_MIN_S: Final = 2
LEASE_EXTRA_MAX_S: Final = 3600
_SCHEMES: Final = ("postgresql", "postgres")
_REDIS_SCHEMES: Final = ("redis", "rediss", "unix")
_REPLICA: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_PREFIX: Final = re.compile(r"[A-Za-z0-9._:-]{1,64}")


class PostgresSection(Section):
    """The Postgres of a fleet: every gateway sends it the rows of its ledger, and shares its keys through it."""

    url: Reference = Field(description="postgresql://user:password@host/database, as env:NAME or file:/path")


def _replica(value: str) -> str:
    if not _REPLICA.fullmatch(value):
        refuse(
            f"{show(value)} cannot be a gateway's name", "use up to 64 letters, digits, dots, dashes and underscores"
        )
    return value


def _prefix(value: str) -> str:
    if not _PREFIX.fullmatch(value):
        refuse(f"{show(value)} cannot begin a key", "use up to 64 letters, digits and any of . _ : -")
    return value


class RedisSection(Section):
    """The Redis of a fleet: budgets, rates, hints, sessions and answers that its gateways share."""

    url: Reference = Field(
        description="redis://user:password@host:6379/0, rediss:// or unix://, as env:NAME or file:/path"
    )
    replica: Annotated[str, AfterValidator(_replica)] | None = Field(
        default=None, description="This gateway's name among the others; made of host name and home if left out"
    )
    prefix: Annotated[str, AfterValidator(_prefix)] = Field(
        default="mixgate:", description="What all keys in Redis begin with; the same for all gateways of a fleet"
    )
    lease_extra_s: int = Field(
        default=60,
        ge=LEASE_EXTRA_MIN_S,
        le=LEASE_EXTRA_MAX_S,
        description="Seconds beyond the longest request for which money stays reserved for a gateway that was killed",
    )


class RedisSettings(Struct, frozen=True):
    """The Redis of a fleet."""

    url: Secret
    replica: str | None = None
    prefix: str = "mixgate:"
    lease_extra_s: int = 60


class PostgresSettings(Struct, frozen=True):
    """The Postgres of a fleet."""

    url: Secret


def settle_postgres(
    section: PostgresSection | None, env: Mapping[str, str], complain: Callable[..., ConfigProblem]
) -> tuple[PostgresSettings | None, list[Path], list[ConfigProblem]]:
    """The settings that a section comes to, the file that its URL came from, and what is wrong with it.

    Args:
        section: None: there is no fleet.
        env: The environment.
        complain: Makes a problem of a place under `gateway`, a message and a fix.
    """
    if section is None:
        return None, [], []
    fix = "write postgresql://user:password@host:5432/database there"
    url, files, problems = _settle_url("Postgres", section.url, _is_postgres, fix, env, complain)
    return None if url is None else PostgresSettings(url), files, problems


def settle_redis(
    section: RedisSection | None, env: Mapping[str, str], complain: Callable[..., ConfigProblem]
) -> tuple[RedisSettings | None, list[Path], list[ConfigProblem]]:
    """As `settle_postgres`; without a section nothing is shared."""
    if section is None:
        return None, [], []
    url, files, problems = _settle_url(
        "Redis", section.url, _is_redis, "write redis://host:6379/0 there", env, complain
    )
    settings = None if url is None else RedisSettings(url, section.replica, section.prefix, section.lease_extra_s)
    return settings, files, problems


def _settle_url(
    what: str,
    reference: str,
    is_one: Callable[[str], bool],
    fix: str,
    env: Mapping[str, str],
    complain: Callable[..., ConfigProblem],
) -> tuple[Secret | None, list[Path], list[ConfigProblem]]:
    found = resolve(reference, env)
    files = [] if found.file is None else [found.file]
    if found.secret is None:
        message = f"the URL of {what} {reference} does not resolve: {found.reason}"
        return None, files, [complain(what.lower(), "url", message=message, fix=found.fix)]
    if not is_one(found.secret.reveal()):
        return None, files, [complain(what.lower(), "url", message=f"{reference} is no URL of a {what}", fix=fix)]
    return found.secret, files, []


def _is_redis(url: str) -> bool:
    try:
        parts = urlsplit(url)
        named = parts.path if parts.scheme == "unix" else parts.hostname
        return parts.scheme in _REDIS_SCHEMES and bool(named) and parts.port != 0
    except ValueError:
        return False


def _is_postgres(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in _SCHEMES and len(parts.path) > 1 and parts.port != 0
    except ValueError:
        return False
