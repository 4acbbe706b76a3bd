"""From a file to a Catalogue: read, judge, cross-reference, and say everything that is wrong at once."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gateway.config.accounts import open_accounts, settle_gateway
from gateway.config.catalogue import Catalogue
from gateway.config.complaints import Located, in_order, pasted_keys, schema_complaints
from gateway.config.locations import PACKAGED_CONFIG, home_folder
from gateway.config.names import settle_names
from gateway.config.overrides import apply, gather, misspelt
from gateway.config.refreshed import find_facts, read_refreshed, refreshed_file
from gateway.config.rows import Facts, Known, fact_keys, facts_of, read_rows
from gateway.config.schema import ConfigFile
from gateway.config.source import TEXT_MAX_BYTES, read_source
from gateway.errors import ConfigError, ConfigProblem


def load(
    path: Path,
    env: Mapping[str, str],
    overrides: Mapping[str, Any] | None = None,
    *,
    today: date | None = None,
    has_issued_keys: bool = False,
) -> Catalogue:
    """Read a providers.yaml.

    Args:
        path: The file.
        env: The environment: keys, and MIXGATE_<KEY> for settings of the `gateway` section.
        overrides: The same settings from flags, by key; they win over the environment.
        today: The day by which `ends_on` is judged; UTC's by default.
        has_issued_keys: Whether there are client keys besides those of the configuration.

    Raises:
        ConfigError: Each of its problems says where, what is wrong and how to mend it.
    """
    text = read_text(path)
    located, file = parse(text, str(path))
    day = today or datetime.now(UTC).date()
    chosen = gather(env, overrides or {})
    section, problems = apply(file.gateway, chosen)
    gateway, gateway_files, gateway_problems = settle_gateway(
        located, section, chosen, env, has_issued_keys=has_issued_keys
    )
    accounts = open_accounts(located, file.providers, env)
    packaged = _is_packaged(path)
    refreshed = refreshed_file(home_folder(env))
    content, unread = read_refreshed(refreshed)
    fresh, senseless = find_facts(content, refreshed, fact_keys(file.providers, accounts.providers))
    known = Known(shipped={} if packaged else shipped_facts(), refreshed=fresh, rows_are_shipped=packaged)
    rows = read_rows(located, file.providers, accounts.providers, known, day)
    names = settle_names(located, file.routes, rows.endpoints)
    problems = [*problems, *gateway_problems, *accounts.problems, *rows.problems, *names.problems]
    if problems:
        raise ConfigError(in_order(problems))
    return Catalogue(
        gateway=gateway,
        providers=accounts.providers,
        endpoints=rows.endpoints,
        routes=names.routes,
        aliases=names.aliases,
        local_models=rows.local_models,
        price_overrides=rows.price_overrides,
        warnings=in_order([*accounts.warnings, *names.warnings, *misspelt(env), *unread, *senseless]),
        path=path,
        digest=hashlib.sha256(text).hexdigest(),
        watched=(*gateway_files, *accounts.files, refreshed),
    )


def read_text(path: Path) -> bytes:
    """The file's bytes, of which at most one more than the bound is read.

    Raises:
        ConfigError: It cannot be read.
    """
    try:
        with path.open("rb") as file:
            return file.read(TEXT_MAX_BYTES + 1)
    except OSError as error:
        message = f"it cannot be read: {error.strerror or type(error).__name__}"
        fix = "name a readable file, or leave --config and MIXGATE_CONFIG out to use the shipped one"
        raise ConfigError((ConfigProblem(str(path), message, fix),)) from error


def parse(text: bytes, name: str) -> tuple[Located, ConfigFile]:
    """Judge a file by itself: YAML, shape, values, keys pasted in.

    Raises:
        ConfigError: As for `load`.
    """
    located = Located(name, read_source(text, name))
    pasted = pasted_keys(located)
    try:
        file = ConfigFile.model_validate(located.root.plain())
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [*pasted.values(), *schema_complaints(located, details, pasted)]
        # Without its cause: pydantic's own words quote the values, and one of them may be a key.
        raise ConfigError(in_order(problems)) from None
    if pasted:
        raise ConfigError(in_order(pasted.values()))
    return located, file


@cache
def shipped_facts() -> Facts:
    """What the shipped catalogue knows of models at known providers."""
    located, file = parse(read_text(PACKAGED_CONFIG), str(PACKAGED_CONFIG))
    return facts_of(file.providers, open_accounts(located, file.providers, {}).providers)


def _is_packaged(path: Path) -> bool:
    try:
        return path.samefile(PACKAGED_CONFIG)
    except OSError:
        return False
