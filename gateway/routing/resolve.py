"""From the name a client asks for to the Route that serves it."""

from gateway.config.catalogue import Catalogue, Route
from gateway.errors import ModelNotFoundError

SHOWN_CHARS_MAX = 100


def resolve(name: str, catalogue: Catalogue) -> Route:
    """The Route of that name: a Route, an alias, a served Model or an Endpoint id, looked up exactly.

    Raises:
        ModelNotFoundError: Nothing has that name; the message offers near ones.
    """
    route = catalogue.find_route(name)
    if route is None:
        raise ModelNotFoundError(_unknown(name[:SHOWN_CHARS_MAX], catalogue), param="model")
    return route


def _unknown(name: str, catalogue: Catalogue) -> str:
    if not name:
        return "no model was named: set `model` to one of the names that GET /v1/models lists"
    if near := catalogue.near_names(name):
        return f"no model is called {name!r}; did you mean {', '.join(near)}? GET /v1/models lists them all"
    return f"no model is called {name!r}; GET /v1/models lists the names that can answer"
