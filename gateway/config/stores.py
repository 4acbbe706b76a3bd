"""Where a fleet keeps what its gateways share: a Postgres for the ledger and the keys."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from msgspec import Struct
from pydantic import Field

from gateway.config.fields import Reference
from gateway.config.secrets import Secret, resolve
from gateway.config.section import Section
from gateway.errors import ConfigProblem

_SCHEMES: Final = ("postgresql", "postgres")


class PostgresSection(Section):
    """The Postgres of a fleet: every gateway sends it the rows of its ledger, and shares its keys through it."""

    url: Reference = Field(description="postgresql://user:password@host/database, as env:NAME or file:/path")


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
    found = resolve(section.url, env)
    files = [] if found.file is None else [found.file]
    if found.secret is None:
        message = f"the URL of Postgres {section.url} does not resolve: {found.reason}"
        return None, files, [complain("postgres", "url", message=message, fix=found.fix)]
    if not _is_one(found.secret.reveal()):
        message = f"{section.url} is no URL of a Postgres"
        fix = "write postgresql://user:password@host:5432/database there"
        return None, files, [complain("postgres", "url", message=message, fix=fix)]
    return PostgresSettings(found.secret), files, []


def _is_one(url: str) -> bool:
    try:
        parts = urlsplit(url)
        return parts.scheme in _SCHEMES and len(parts.path) > 1 and parts.port != 0
    except ValueError:
        return False
