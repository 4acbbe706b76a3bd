"""The page of every error class: what a client sees, and what to do. Used by generate_docs.py."""

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

from docs_markdown import MARK, meaning, table
from docs_words import ADVICE, ROOT_ADVICE

from gateway.server.errors import OPERATOR_MUST_ACT, RETRY_STATUSES
from local_backend.errors import LocalError
from local_backend.file_errors import LocalBackendError
from providers import local
from providers.errors import BadRequestError, MixgateError, ProviderError, ServerError

ERROR_MODULES = ("providers.errors", "gateway.errors", "gateway.server.refusals", "gateway.dashboard.errors")


def error_page() -> Iterator[str]:
    """Every error class: what a client sees, and what to do."""
    for module in ERROR_MODULES:
        import_module(module)
    every = sorted(_below(MixgateError), key=lambda kind: (kind.status, kind.code))
    yield "# Errors, by code\n"
    yield MARK + "\n"
    yield "An error that reaches a client has the shape of [the HTTP reference](http.md#errors). `code` is"
    yield "stable: match on it, not on the message. `source` says whose fault it is. **Next tried**: before the"
    yield "first content, the gateway asks the next Endpoint by itself; you see the error only when nobody"
    yield "could answer. **Again**: whether the same request may do better later (`x-should-retry`). What else"
    yield "the gateway does about a failure: [failover](../explanation/failover.md).\n"
    yield "## The gateway's own refusals\n"
    gateway = [kind for kind in every if kind.source == "gateway" and kind.code not in ("refused", "config_invalid")]
    yield from table(
        ("code", "status", "again", "meaning", "what to do"),
        [
            (f"`{kind.code}`", str(kind.status), _again(kind), meaning(kind), _advice(kind.code, gateway=True))
            for kind in _by_code(gateway)
        ],
    )
    yield "## A provider failed, or the way to it\n"
    yield "When several Endpoints failed, the client gets the one error that tells it most about what to do; `attempts`"
    yield "lists them all. A client's total time that runs out ends the running Attempt as `first_token_timeout` or"
    yield "`provider_stalled`.\n"
    providers = [kind for kind in every if kind.source == "provider"]
    yield from table(
        ("code", "status", "next tried", "again", "meaning", "what to do"),
        [
            (
                f"`{kind.code}`",
                str(kind.status),
                "yes" if kind.retryable else "no",
                _again(kind),
                meaning(kind),
                _advice(kind.code, gateway=False),
            )
            for kind in _by_code(providers)
        ],
    )
    yield from _local_errors()


def _by_code(kinds: Iterable[type[Any]]) -> list[type[Any]]:
    """One class per code: where a base class shares its code with a leaf, the leaf says more.

    Where an Attempt's error shares it with a refusal of the whole request, the refusal is what clients see.
    """
    ordered = sorted(kinds, key=lambda kind: (len(kind.__mro__), not issubclass(kind, ProviderError), kind.__name__))
    last = {kind.code: kind for kind in ordered}
    return sorted(last.values(), key=lambda kind: (kind.status, kind.code))


def _below(kind: type[Any]) -> set[type[Any]]:
    found = {kind}
    for child in kind.__subclasses__():
        found |= _below(child)
    return {each for each in found if each.__module__ in ERROR_MODULES}


def _again(kind: type[Any]) -> str:
    return "yes" if kind.status in RETRY_STATUSES and not issubclass(kind, OPERATOR_MUST_ACT) else "no"


def _advice(code: str, *, gateway: bool) -> str:
    found = (ROOT_ADVICE.get(code) if gateway else None) or ADVICE.get(code)
    if found is None:
        raise SystemExit(f"build_aux/docs_words.py says nothing about what to do on {code}")
    return found


def _local_errors() -> Iterator[str]:
    yield "## The local backend\n"
    yield "The worker's own codes stand under `provider_code`; the client's `code` is the one beside it.\n"
    kinds = [kind for kind in LocalError.__subclasses__() if kind.__module__ == LocalError.__module__]
    rows = []
    for kind in kinds:
        seen: type[ProviderError] = local._BY_CODE.get(  # noqa: SLF001  # the table is the mapping; nothing else tells it
            kind.code, BadRequestError if kind.status < 500 else ServerError
        )
        rows.append((f"`{kind.code}`", f"`{seen.code}`", meaning(kind), _advice(kind.code, gateway=False)))
    yield from table(("provider_code", "code", "meaning", "what to do"), rows)
    yield "## Files and downloads\n"
    yield "Shown by `mixgate pull` and `mixgate doctor`, or as the reason why a local model is off; never as an"
    yield "answer's `code`. Each message says what to do.\n"
    files = [kind for kind in _all_below(LocalBackendError) if kind.code != LocalBackendError.code]
    yield from table(("code", "meaning"), [(f"`{kind.code}`", meaning(kind)) for kind in files])
    yield "## The configuration\n"
    yield f"`config_invalid`: {meaning(import_module('gateway.errors').ConfigError)} It never reaches a client:"
    yield "`mixgate serve` and `mixgate check` exit 2, and a running gateway keeps its old configuration and"
    yield "logs what is wrong.\n"


def _all_below(kind: type[Any]) -> list[type[Any]]:
    found = [child for child in kind.__subclasses__() if child.__module__ == LocalBackendError.__module__]
    return [*found, *(grandchild for child in found for grandchild in _all_below(child))]
