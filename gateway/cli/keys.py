"""`mixgate keys`: issue client keys, look at them, change what they may do, take them back."""

import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeVar, cast

import click
import msgspec

from gateway.cli.key_changes import find_desk, read_desk
from gateway.cli.key_names import warn_of_unknown
from gateway.cli.output import EXIT_CONFIGURATION, fail, print_table
from gateway.keys.changes import US_PER_S
from gateway.keys.key import STRICTNESS, WINDOWS
from gateway.keys.ring import KeyRing
from providers.json_values import elements

Command = TypeVar("Command", bound=Callable[..., Any])
NONE: Final = "none"
"""As the value of a limit: there is none."""
_SPAN: Final = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d.*", re.ASCII)
_AMOUNT: Final = re.compile(r"-?(?:\d+\.?\d*|\.\d+)", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_LISTED: Final = ("name", "id", "state", "team", "spent today", "this month", "ever", "limit", "left")


@click.group("keys")
def command() -> None:
    """Issue client keys, and say what each may use, spend and ask for in a minute.

    A key is shown once, when it is made; what is kept cannot be turned back into it. Keys take effect at once, in a
    running gateway too. A key may be the team of others: its limits bound all of them together.
    """


def _where(function: Command) -> Command:
    """Options that say which gateway is meant."""
    function = click.option("--json", "as_json", is_flag=True, help="As JSON, in the shape of the admin API.")(function)
    function = click.option("--config", type=click.Path(path_type=Path), help="As for `mixgate serve`.")(function)
    function = click.option("--token", help="Admin token of the gateway at --url, as env:NAME or file:/path.")(function)
    return click.option("--url", help="A gateway elsewhere; else the one of MIXGATE_HOME, running or not.")(function)


def _limits(function: Command) -> Command:
    """Options for limits. `none` takes one away."""
    for name, words in reversed(
        [
            *((f"--{window}", f"Budget in USD{_each(window)}.") for window in WINDOWS),
            ("--requests-per-min", "Requests in a minute."),
            ("--tokens-per-min", "Tokens in a minute, of prompts and answers."),
            ("--concurrency", "Requests at the same time."),
            ("--models", "Routes, models or endpoints that it may use, separated by commas."),
            ("--providers", "Providers that it may use, separated by commas."),
            ("--max-price-input", "The most that an endpoint may charge, in USD per million tokens."),
            ("--max-price-output", "Likewise."),
            ("--expires", "When it ends: 30d, or a time as 2027-01-31T00:00:00Z."),
        ]
    ):
        function = click.option(name, help=words, metavar="VALUE")(function)
    return click.option("--data", type=click.Choice(list(STRICTNESS)), help="What may become of its prompts.")(function)


def _each(window: str) -> str:
    return "" if window == "ever" else f" for each {window} (UTC)"


@command.command("create")
@click.argument("name")
@click.option("--team", help="Name or id of the key whose limits bound this one too.")
@_limits
@_where
def create(
    name: str,
    team: str | None,
    as_json: bool,  # noqa: FBT001  # click passes flags so
    url: str | None,
    token: str | None,
    config: Path | None,
    **limits: str | None,
) -> None:
    """Make a key and print it: this once."""
    body: dict[str, Any] = {"name": name} | _body(limits)
    if team is not None:
        body["mixgate"]["parent"] = _find(team, remote=url is not None)
    _show_key(find_desk(url, token, config).change("POST", "", body), as_json=as_json)
    _warn(body, url, config)  # only now: a key's text is shown once, and nothing may come in between


@command.command("change")
@click.argument("key")
@click.option("--name", help="Its new name.")
@_limits
@_where
def change(
    key: str,
    name: str | None,
    as_json: bool,  # noqa: FBT001  # click passes flags so
    url: str | None,
    token: str | None,
    config: Path | None,
    **limits: str | None,
) -> None:
    """Change a key's limits; those that are not named stay. `none` takes one away."""
    body = _body(limits) | ({} if name is None else {"name": name})
    if body == {"mixgate": {}}:
        raise click.UsageError("say what is to change")
    _patch(key, body, as_json=as_json, url=url, token=token, config=config)
    _warn(body, url, config)


@command.command("disable")
@click.argument("key")
@_where
def disable(key: str, **where: Any) -> None:
    """Refuse a key, and all of its team, until it is enabled again."""
    _patch(key, {"disabled": True}, **where)


@command.command("enable")
@click.argument("key")
@_where
def enable(key: str, **where: Any) -> None:
    """Take a key that was disabled again."""
    _patch(key, {"disabled": False}, **where)


@command.command("rotate")
@click.argument("key")
@click.option("--overlap", default="1d", show_default=True, help="How long the old one stays good: 0s, 12h, 7d.")
@_where
def rotate(
    key: str,
    overlap: str,
    as_json: bool,  # noqa: FBT001  # click passes flags so
    url: str | None,
    token: str | None,
    config: Path | None,
) -> None:
    """Give a key a new text and print it. Its limits, budgets and history go on."""
    found = _SPAN.fullmatch(overlap)
    if found is None:
        raise click.BadParameter("give a time as 0s, 12h or 7d", param_hint="--overlap")
    tail = f"/{_find(key, remote=url is not None)}/rotate"
    body = {"overlap_s": float(int(found[1]) * _SECONDS[found[2]])}
    _show_key(find_desk(url, token, config).change("POST", tail, body), as_json=as_json)


@command.command("delete")
@click.argument("key")
@click.option("--yes", is_flag=True, help="Do not ask.")
@_where
def delete(
    key: str,
    yes: bool,  # noqa: FBT001  # click passes flags so
    as_json: bool,  # noqa: FBT001  # click passes flags so
    url: str | None,
    token: str | None,
    config: Path | None,
) -> None:
    """Delete a key for good, and with it those of its team. The ledger keeps what it spent."""
    found = _find(key, remote=url is not None)
    if not yes:
        click.confirm(f"Delete {key} for good?", abort=True, err=True)
    said = find_desk(url, token, config).change("DELETE", f"/{found}", {})
    click.echo(_json(said) if as_json else f"{key} is deleted")


@command.command("list")
@click.option("--json", "as_json", is_flag=True, help="As JSON, in the shape of the admin API.")
def list_keys(as_json: bool) -> None:  # noqa: FBT001  # click passes flags so
    """List all keys with what they spent."""
    desk, ring = read_desk()
    items = [desk.get(record.id)["data"] for record in ring.records() if record.deleted_us is None]
    if as_json:
        click.echo(_json({"data": items}))
        return
    plain: list[dict[str, Any]] = msgspec.json.decode(msgspec.json.encode(items))
    print_table("Client keys", _LISTED, [_row(item, ring) for item in plain])


@command.command("show")
@click.argument("key")
@click.option("--json", "as_json", is_flag=True, help="As JSON, in the shape of the admin API.")
def show(key: str, as_json: bool) -> None:  # noqa: FBT001  # click passes flags so
    """Show what a key may do and has spent."""
    desk, _ = read_desk()
    _show(desk.get(_find(key, remote=False)), as_json=as_json)


def _patch(
    key: str, body: dict[str, Any], *, as_json: bool, url: str | None, token: str | None, config: Path | None
) -> None:
    tail = f"/{_find(key, remote=url is not None)}"
    _show(find_desk(url, token, config).change("PATCH", tail, body), as_json=as_json)


def _warn(body: dict[str, Any], url: str | None, config: Path | None) -> None:
    """Say which names nobody knows. What a gateway elsewhere knows is not known here."""
    models, providers = (body["mixgate"].get(name) or () for name in ("models", "providers"))
    if (models or providers) and url is None:
        warn_of_unknown(models, providers, config)


def _find(key: str, *, remote: bool) -> str:
    """The public id of a key by its name, id or hash. At another gateway names are not known: then as it is."""
    if remote:
        return key
    _, ring = read_desk()
    kept = (record for record in ring.records() if record.deleted_us is None)
    found = next((record.id for record in kept if key in {record.id, record.name, record.hash}), None)
    if found is None:
        fix = "see `mixgate keys list`; MIXGATE_HOME must be the gateway's"
        fail(f"there is no key {key!r}", fix, EXIT_CONFIGURATION)
    return found


def _body(options: dict[str, str | None]) -> dict[str, Any]:
    """Options as the admin API takes them."""
    given = {name: _value(name, text) for name, text in options.items() if text is not None}
    own: dict[str, Any] = {
        name: given[name]
        for name in ("models", "providers", "requests_per_min", "tokens_per_min", "concurrency", "data")
        if name in given
    }
    budget = {window: given[window] for window in WINDOWS if window in given}
    price = {name: given[f"max_price_{name}"] for name in ("input", "output") if f"max_price_{name}" in given}
    own |= ({"budget": budget} if budget else {}) | ({"max_price": price} if price else {})
    return {"mixgate": own} | ({"expires_at": given["expires"]} if "expires" in given else {})


def _value(name: str, text: str) -> Any:
    if text == NONE:
        return None
    if name in {"models", "providers"}:
        return [one.strip() for one in text.split(",") if one.strip()]
    if name in {"requests_per_min", "tokens_per_min", "concurrency"}:
        if not text.isascii() or not text.isdigit():
            raise click.BadParameter("give a whole number, or none", param_hint=f"--{name.replace('_', '-')}")
        return int(text)
    if name == "expires" and (found := _SPAN.fullmatch(text)):
        moment = datetime.now(UTC) + timedelta(seconds=int(found[1]) * _SECONDS[found[2]])
        return moment.isoformat(timespec="seconds")
    if name == "expires" and not _TIME.fullmatch(text):
        raise click.BadParameter("give 30d, 2027-01-31T00:00:00Z, or none", param_hint="--expires")
    if name in {*WINDOWS, "max_price_input", "max_price_output"} and not _AMOUNT.fullmatch(text):
        raise click.BadParameter("give dollars as 5 or 0.05, or none", param_hint=f"--{name.replace('_', '-')}")
    return text


def _show_key(said: dict[str, Any], *, as_json: bool) -> None:
    """Print a key's text to standard output and nothing else there, so that it can be piped."""
    if as_json:
        click.echo(_json(said))
        return
    name = msgspec.json.decode(msgspec.json.encode(said))["data"]["name"]
    click.echo(f"{name}: keep this key now, it is not shown again.", err=True)
    click.echo(said["key"])


def _show(said: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(_json(said))
        return
    item: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(said["data"]))
    own = cast("dict[str, Any]", item.pop("mixgate"))
    rows = [(name, _cell(value)) for name, value in (item | own).items() if not name.startswith("byok")]
    print_table(item["name"], ("", ""), rows)


def _row(item: dict[str, Any], ring: KeyRing) -> tuple[str, ...]:
    own = item["mixgate"]
    team = ring.get(own["parent"] or "")
    state = ring.why_not(own["id"], int(time.time() * US_PER_S)) or "on"
    limit = "" if item["limit"] is None else f"{item['limit']} {item['limit_reset'] or 'ever'}"
    spent = (str(item[name]) for name in ("usage_daily", "usage_monthly", "usage"))
    return (
        item["name"],
        own["id"],
        state,
        "" if team is None else team.name,
        *spent,
        limit,
        _cell(item["limit_remaining"]),
    )


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        members = cast("dict[str, Any]", value)
        return ", ".join(f"{name} {_cell(one)}" for name, one in members.items() if one is not None)
    several = elements(value)
    return ", ".join(str(one) for one in several) if several else str(value)


def _json(said: dict[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(said), indent=2).decode()
