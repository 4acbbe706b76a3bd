"""The one secret of MIXGATE_HOME: made once, 0600, and the root of every other one under a purpose of its own."""

import contextlib
import hmac
import os
import secrets
import stat
from pathlib import Path
from typing import Final

from msgspec import Struct

from gateway.config.secrets import Secret
from gateway.errors import ConfigError, ConfigProblem

FILE_NAME: Final = "secret"
SECRET_BYTES: Final = 32
FOLDER_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_PEPPER: Final = b"mixgate: pepper of client keys, 1"
_MARK: Final = b"mixgate: whether two gateways have one secret, 1"
_ADMIN: Final = b"mixgate: administration from this machine, 1"


class HomeSecrets(Struct, frozen=True):
    """What follows from it. Whoever may read MIXGATE_HOME can work both out."""

    pepper: bytes
    """For the digests of client keys."""
    admin_token: Secret
    """Lets `mixgate keys` of the same user change keys in a running gateway, from this machine only."""
    key_mark: str
    """The same for gateways whose keys are good at one another's doors. Tells nothing of the secret."""

    def __repr__(self) -> str:
        """Without any of it."""
        return "HomeSecrets(***)"


def open_home_secrets(home: Path) -> HomeSecrets:
    """Read it, or make it where there is none.

    Raises:
        ConfigError: It cannot be read or made, others can read it, or it is not ours.
    """
    path = home / FILE_NAME
    try:
        with contextlib.suppress(FileNotFoundError):
            return derive(_read(path))
        _make(path)
        return derive(_read(path))  # whoever was faster has made the one that counts
    except OSError as error:
        raise _unusable(
            path,
            error.strerror or type(error).__name__,
            "set MIXGATE_HOME to a folder that this user owns and can write",
        ) from error


def derive(secret: bytes) -> HomeSecrets:
    """What follows from a secret."""
    token = hmac.digest(secret, _ADMIN, "sha256").hex()
    return HomeSecrets(
        hmac.digest(secret, _PEPPER, "sha256"),
        Secret(f"mga-{token}", f"{FILE_NAME} in MIXGATE_HOME"),
        hmac.digest(secret, _MARK, "sha256").hex()[:16],
    )


def _read(path: Path) -> bytes:
    """Judged on the open file, so that it cannot be swapped in between."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _unusable(path, "it is no regular file", "move it away")
        if status.st_uid not in {0, os.geteuid()}:
            raise _unusable(path, "it belongs to another user", f"run as that user, or chown {path}")
        if status.st_mode & 0o077:
            raise _unusable(path, "others can read it", f"chmod 600 {path}, and rotate all keys if others did")
        content = file.read(SECRET_BYTES + 1)
    if len(content) != SECRET_BYTES:
        raise _unusable(path, "it is damaged", "put it back from a backup; without it, every issued key is void")
    return content


def _make(path: Path) -> None:
    """Write a whole new one beside its place and link it there, so that nobody ever reads half of one."""
    path.parent.mkdir(mode=FOLDER_MODE, parents=True, exist_ok=True)
    draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(descriptor)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _unusable(path: Path, reason: str, fix: str) -> ConfigError:
    return ConfigError((ConfigProblem(str(path), f"the secret for client keys cannot be used: {reason}", fix),))
