"""Names that a key is limited to and that the configuration does not know: told, and taken all the same.

A key may be made before its models and providers are configured.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from gateway.cli.output import print_problems
from gateway.config.catalogue import Catalogue
from gateway.config.complaints import did_you_mean, spell_fix
from gateway.config.load import load
from gateway.config.locations import find_config
from gateway.config.secrets import show
from gateway.errors import ConfigError, ConfigProblem


def warn_of_unknown(models: Sequence[str], providers: Sequence[str], config: Path | None) -> None:
    """Warn of each name by which a key may use nobody.

    Args:
        models: What the key is limited to.
        providers: The same, of providers.
        config: The configuration that was named; a broken or missing one knows no names, and is not complained of.
    """
    try:
        catalogue = load(find_config(config, os.environ, Path.cwd()), os.environ, has_issued_keys=True)
    except ConfigError:
        return
    print_problems([*unknown_names(models, catalogue), *unknown_providers(providers, catalogue)], "warning")


def unknown_providers(providers: Sequence[str], catalogue: Catalogue) -> list[ConfigProblem]:
    """A complaint about each of the names that is no Provider's."""
    known = [*catalogue.providers]
    return [
        ConfigProblem(
            str(catalogue.path),
            f"no Provider is called {show(name)}{did_you_mean(name, known)}",
            spell_fix(name, known, "see `mixgate check`, or configure it"),
        )
        for name in providers
        if name not in catalogue.providers
    ]


def unknown_names(models: Sequence[str], catalogue: Catalogue) -> list[ConfigProblem]:
    """A complaint about each of the names that permits no Endpoint, whatever is on. Patterns are not known to keys."""
    known = _permitting(catalogue)
    return [_complaint(name, known, catalogue) for name in models if name not in known]


def _permitting(catalogue: Catalogue) -> dict[str, None]:
    """The names that permit an Endpoint, as `names` of a Table's Row has them."""
    names = dict.fromkeys(catalogue.routes)
    for endpoint in catalogue.endpoints.values():
        names |= dict.fromkeys((endpoint.model, endpoint.id, endpoint.provider))
    return names


def _complaint(name: str, known: dict[str, None], catalogue: Catalogue) -> ConfigProblem:
    where, route = str(catalogue.path), catalogue.find_route(name)
    if route is not None:
        message = f'a key may use nobody by the name {show(name)}: it stands for the Route "{route.name}"'
        return ConfigProblem(where, message, f'write "{route.name}"')
    message = f"no Route, Model or Endpoint is called {show(name)}{did_you_mean(name, known)}"
    return ConfigProblem(where, message, spell_fix(name, [*known], "see `mixgate models`, or configure it"))
