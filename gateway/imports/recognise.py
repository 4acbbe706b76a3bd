"""Which of the known kinds a file is of, and its conversion."""

from collections.abc import Mapping, Sequence
from typing import Final, Literal, TypeAlias, get_args

from gateway.config.source import read_source
from gateway.errors import ConfigError
from gateway.imports.amounts import read_json
from gateway.imports.draft import Draft, ImportSourceError
from gateway.imports.litellm_prices import from_price_list, is_price_list
from gateway.imports.litellm_proxy import from_proxy_config, is_proxy_config
from gateway.imports.openrouter_request import Sibling, from_openrouter_request, is_openrouter_request
from gateway.imports.portkey import from_portkey_config, is_portkey_config

Kind: TypeAlias = Literal["litellm-prices", "litellm-proxy", "portkey", "openrouter"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)


def recognise(text: bytes, name: str) -> Kind:
    """The kind of a file.

    Raises:
        ImportSourceError: It is none of them.
    """
    try:
        content = read_json(text)
    except ImportSourceError:
        try:
            content = read_source(text, name).plain()
        except ConfigError as error:
            raise ImportSourceError("it is neither JSON nor YAML", "name one of: " + ", ".join(KINDS)) from error
    if is_proxy_config(content):
        return "litellm-proxy"
    if is_portkey_config(content):
        return "portkey"
    if is_openrouter_request(content):
        return "openrouter"
    if is_price_list(content):
        return "litellm-prices"
    raise ImportSourceError("it is of no kind that is known", "say what it is with --from, one of: " + ", ".join(KINDS))


def convert(
    kind: Kind,
    text: bytes,
    *,
    file: str,
    name: str | None,
    only: Sequence[str],
    env: Mapping[str, str],
    siblings: Mapping[str, Sequence[Sibling]],
    as_of: str,
) -> Draft:
    """The Draft of a file.

    Args:
        kind: What the file is.
        text: Its bytes.
        file: Its name, for complaints.
        name: What the Route is to be called, for sources that have no name for it.
        only: Patterns of models to take, for price lists.
        env: The environment, for URLs that a source takes from there. Keys are never read.
        siblings: See `from_openrouter_request`.
        as_of: The day, as YYYY-MM-DD.

    Raises:
        ImportSourceError: It cannot be converted.
    """
    if kind == "litellm-prices":
        return from_price_list(text, as_of=as_of, only=only)
    if kind == "litellm-proxy":
        return from_proxy_config(text, file, env, as_of=as_of)
    if kind == "portkey":
        return from_portkey_config(text, name or "main", env=env, as_of=as_of)
    return from_openrouter_request(text, name, siblings=siblings, as_of=as_of)
