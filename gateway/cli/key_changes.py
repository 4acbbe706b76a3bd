"""Where `mixgate keys` makes its changes: in the store itself, or through the gateway that has the store open."""

import asyncio
import os
import time
from pathlib import Path
from typing import Any, Final, Protocol

import msgspec

from gateway.cli.output import EXIT_CONFIGURATION, fail, load_or_exit
from gateway.cli.serve import base_url
from gateway.config.locations import find_config, home_folder
from gateway.config.secrets import resolve
from gateway.errors import ConfigError, RefusalError
from gateway.keys.changes import US_PER_S
from gateway.keys.home_secret import open_home_secrets
from gateway.keys.office import KeyOffice
from gateway.keys.purse import Purse, read_past
from gateway.keys.ring import KeyRing
from gateway.keys.storage import OwnStore, read_records, spending
from gateway.server.admin import KeyDesk
from gateway.server.key_routes import KEYS_PATH
from gateway.state.connection import FILE_NAME
from gateway.state.errors import StoreError, StoreInUseError
from gateway.state.ledger_reader import LedgerReader
from providers.json_values import members

TIMEOUT_S: Final = 30.0
_FIX_REFUSED: Final = {
    401: "name the admin token with --token",
    403: "name the admin token with --token",
    404: "with --url, name the key by its id, as in `mixgate keys list`",
}
_FIX_FILE: Final = "run it as the gateway's user, with MIXGATE_HOME as it is for the gateway"


class Desk(Protocol):
    """Makes changes, each given as the admin API takes it."""

    def change(self, method: str, tail: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make one.

        Args:
            method: POST, PATCH or DELETE.
            tail: What follows `/api/v1/keys`.
            body: Of the request.
        """
        ...


def read_desk() -> tuple[KeyDesk, KeyRing]:
    """The keys as they are in the file, whoever writes it; for looking only."""
    home = home_folder(os.environ)
    try:
        records = read_records(home / FILE_NAME)
        ring = KeyRing(b"", records)
        return _desk(home, ring, KeyOffice(ring, b"", _no_change, _unix_us)), ring
    except StoreError as error:
        fail(f"{home / FILE_NAME} cannot be read: {error}", _FIX_FILE)


def find_desk(url: str | None, token: str | None, config: Path | None) -> Desk:
    """Who makes changes now.

    Args:
        url: A gateway's base URL; None: the store here, or the gateway here that has it open.
        token: Reference to its admin token; None: that of this machine.
        config: The configuration that says where a gateway here listens.
    """
    home = home_folder(os.environ)
    if url is None:
        try:
            return OwnDesk(home)
        except StoreInUseError:
            gateway = load_or_exit(find_config(config, os.environ, Path.cwd()), os.environ).gateway
            if gateway.port == 0:
                fail("a gateway has the keys open, and the configuration does not say on which port", "give its --url")
            url = base_url(gateway.host, gateway.port, tls=gateway.tls is not None)
        except StoreError as error:
            fail(f"{home / FILE_NAME} cannot be changed: {error}", _FIX_FILE)
    return AskingDesk(url, _token(token, home))


class OwnDesk:
    """Changes the store itself, which no gateway has open.

    Raises:
        StoreInUseError: One has.
        StoreError: It cannot be opened.
    """

    def __init__(self, home: Path) -> None:
        self._home = home
        self._store = OwnStore(home / FILE_NAME)

    def change(self, method: str, tail: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make a change, and give the store back."""
        try:
            return asyncio.run(self._change(method, tail, msgspec.json.encode(body)))
        except RefusalError as error:
            fail(error.message, "correct the command", EXIT_CONFIGURATION)
        except ConfigError as error:
            fail(error.problems[0].message, error.problems[0].fix, EXIT_CONFIGURATION)
        except StoreError as error:
            fail(f"nothing has changed: {error}", _FIX_FILE)
        finally:
            self._store.close()

    async def _change(self, method: str, tail: str, body: bytes) -> dict[str, Any]:
        pepper = open_home_secrets(self._home).pepper
        ring = KeyRing(pepper, read_records(self._home / FILE_NAME))
        desk = _desk(self._home, ring, KeyOffice(ring, pepper, self._store.save, _unix_us))
        name = tail.strip("/").partition("/")[0]
        if method == "POST":
            return await (desk.rotate(name, body) if name else desk.create(body))
        return await (desk.change(name, body) if method == "PATCH" else desk.delete(name))


class AskingDesk:
    """Asks a gateway to make changes."""

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/").removesuffix("/v1").removesuffix("/api")
        self._token = token

    def change(self, method: str, tail: str, body: dict[str, Any]) -> dict[str, Any]:
        """Make a change."""
        # The HTTP client takes longer to load than everything else here.
        import httpx  # noqa: PLC0415

        try:
            answer = httpx.request(
                method,
                f"{self._url}{KEYS_PATH}{tail}",
                content=msgspec.json.encode(body),
                headers={"authorization": f"Bearer {self._token}", "content-type": "application/json"},
                timeout=TIMEOUT_S,
                trust_env=False,
            )
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            fail(
                f"the gateway did not answer at {self._url}: {error or type(error).__name__}",
                "name it with --url, or stop it and change the keys without it",
            )
        try:
            said = members(msgspec.json.decode(answer.content))
        except msgspec.DecodeError:
            said = {}
        if not answer.is_success:
            message = members(said.get("error")).get("message") or "it did not say why"
            fix = _FIX_REFUSED.get(answer.status_code, "correct the command")
            fail(f"the gateway refused (HTTP {answer.status_code}): {message}", fix)
        return said


def _desk(home: Path, ring: KeyRing, office: KeyOffice) -> KeyDesk:
    purse = Purse(ring.chain)
    path = home / FILE_NAME
    if ring.records() and path.exists():
        with LedgerReader(path) as reader:
            purse.load(read_past(spending(reader, [one.id for one in ring.records()]), time.time()))
    return KeyDesk(office, purse, time.time)


def _token(reference: str | None, home: Path) -> str:
    try:
        if reference is None:
            return open_home_secrets(home).admin_token.reveal()
    except ConfigError as error:
        fail(error.problems[0].message, error.problems[0].fix, EXIT_CONFIGURATION)
    found = resolve(reference, os.environ)
    if found.secret is None:
        fail(f"the admin token cannot be used: {found.reason}", found.fix, EXIT_CONFIGURATION)
    return found.secret.reveal()


async def _no_change(_: object) -> None:
    raise StoreError("the file is only read")


def _unix_us() -> int:
    return int(time.time() * US_PER_S)
