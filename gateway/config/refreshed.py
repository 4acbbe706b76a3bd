"""What `mixgate refresh` last learned of models: facts for what a configuration leaves out, from MIXGATE_HOME.

The file is `catalogue.json`: for each provider that was asked its figures by model, each with its source and date.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import msgspec
from msgspec import Struct
from pydantic import ValidationError

from gateway.config.schema import PRICE_KEYS, ModelSection
from gateway.errors import ConfigProblem

FILE_NAME: Final = "catalogue.json"
FILE_MAX_BYTES: Final = 32 * 1024 * 1024
"""What `catalogue.json` may have; a list of 400 models has under 1 MB."""
VERSION: Final = 1


class Figure(Struct, frozen=True, kw_only=True):
    """One figure: what it is, who says so, and since when it is known."""

    value: Any
    """As providers.yaml has it; prices are decimal text."""
    source: str
    as_of: str


class AskedProvider(Struct, frozen=True, kw_only=True):
    """A provider that was asked, and what it said."""

    dialect: str
    base_url: str
    models: dict[str, dict[str, Figure]]


class RefreshedCatalogue(Struct, frozen=True, kw_only=True):
    """The whole file."""

    version: int = VERSION
    providers: list[AskedProvider] = []


def refreshed_file(home: Path) -> Path:
    """Where the file is, or will be."""
    return home / FILE_NAME


def read_refreshed(path: Path) -> tuple[RefreshedCatalogue, tuple[ConfigProblem, ...]]:
    """The file's content; an empty one, with a warning, where it cannot be used."""
    try:
        with path.open("rb") as file:
            text = file.read(FILE_MAX_BYTES + 1)
    except FileNotFoundError:
        return RefreshedCatalogue(), ()
    except OSError as error:
        return RefreshedCatalogue(), (_ignored(path, error.strerror or type(error).__name__),)
    try:
        content = msgspec.json.decode(text[: FILE_MAX_BYTES + 1], type=RefreshedCatalogue)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return RefreshedCatalogue(), (_ignored(path, "it is not what `mixgate refresh` writes"),)
    if content.version != VERSION:
        return RefreshedCatalogue(), (_ignored(path, f"it is of version {content.version}, not {VERSION}"),)
    return content, ()


def find_facts(
    content: RefreshedCatalogue, path: Path, wanted: Iterable[tuple[str, str, str]]
) -> tuple[dict[tuple[str, str, str], ModelSection], tuple[ConfigProblem, ...]]:
    """The rows for the models that are wanted, by dialect, base URL and upstream id. Others are not even looked at."""
    by_place = {(provider.dialect, provider.base_url): provider.models for provider in content.providers}
    found: dict[tuple[str, str, str], ModelSection] = {}
    problems: list[ConfigProblem] = []
    for dialect, base_url, upstream in wanted:
        figures = by_place.get((dialect, base_url), {}).get(upstream)
        if not figures:
            continue
        try:
            found[dialect, base_url, upstream] = section_of(figures)
        except (ValidationError, ArithmeticError, ValueError):
            problems.append(_ignored(path, f"what it says of {upstream!r} makes no sense"))
    return found, tuple(problems)


def section_of(figures: Mapping[str, Figure]) -> ModelSection:
    """A row out of figures.

    Raises:
        ValidationError: They are not what providers.yaml may hold.
        ArithmeticError: A price is no number.
    """
    row: dict[str, Any] = {name: figure.value for name, figure in figures.items()}
    if isinstance(row.get("price"), dict):
        row["price"] = _prices(row["price"])
    dates = sorted({figure.as_of for figure in figures.values()})
    sources = dict.fromkeys(figure.source for figure in figures.values())
    return ModelSection.model_validate({**row, "source": ", ".join(sources), "as_of": dates[0]})


def merge_facts(known: ModelSection | None, fresh: ModelSection) -> ModelSection:
    """What was known with what was learned since on top. Capabilities are told one by one, prices all together."""
    if known is None:
        return fresh
    update = fresh.written()
    if known.capabilities is not None and fresh.capabilities is not None:
        update["capabilities"] = known.capabilities.model_copy(update=fresh.capabilities.written())
    return known.model_copy(update=update)


def _prices(price: Mapping[str, Any]) -> dict[str, Any]:
    """Decimal text as numbers, as the source of a providers.yaml gives them."""
    numbers = {key: Decimal(value) for key, value in price.items() if key in PRICE_KEYS}
    rest = {key: value for key, value in price.items() if key not in {*PRICE_KEYS, "overrides"}}
    overrides = [_prices(override) for override in price.get("overrides", [])]
    return {**numbers, **rest, **({"overrides": overrides} if overrides else {})}


def _ignored(path: Path, why: str) -> ConfigProblem:
    return ConfigProblem(str(path), f"it is ignored: {why}", "write it anew with `mixgate refresh`, or delete it")
