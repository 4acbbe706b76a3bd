"""Provider and client keys: named in the configuration, read from the environment or a file, never shown.

A key is only ever written as `env:NAME` or `file:/absolute/path`. What looks like a key itself is refused wherever it
stands in the file, because configuration ends up in version control, chats and bug reports.
"""

import hashlib
import hmac
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn, final

from msgspec import Struct

SECRET_MAX_BYTES = 8192
QUOTED_MAX_CHARS = 60
MASK = "***"

_REFERENCE = re.compile(r"env:([A-Za-z_][A-Za-z0-9_]{0,127})|file:(/[^\x00-\x1f]{1,4095})")
_HEADER_SAFE = re.compile(r"[\x21-\x7e]+")
# Prefixes that vendors print at the front of their keys, or shapes that nothing but a credential has.
_KNOWN_KEY = re.compile(
    r"(?<![A-Za-z0-9])("
    r"(sk|pk|rk)[-_][A-Za-z0-9_-]{12,}|gsk_[A-Za-z0-9]{16,}|(gw|mg|mga)-[A-Za-z0-9]{24,}|xai-[A-Za-z0-9]{16,}|hf_[A-Za-z0-9]{16,}"
    r"|r8_[A-Za-z0-9]{16,}|nvapi-[A-Za-z0-9_-]{16,}|pplx-[A-Za-z0-9]{16,}|fw_[A-Za-z0-9]{16,}|csk-[A-Za-z0-9]{16,}"
    r"|tgp_v1_[A-Za-z0-9_-]{16,}|gh[pousr]_[A-Za-z0-9]{20,}|github_pat_[A-Za-z0-9_]{20,}|xox[abprs]-[A-Za-z0-9-]{10,}"
    r"|(AKIA|ASIA)[A-Z0-9]{16}|AIza[A-Za-z0-9_-]{30,}|eyJ[A-Za-z0-9_-]{8,}\.eyJ[A-Za-z0-9_-]{8,}"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY|[Bb]earer [A-Za-z0-9._~+/-]{12,}"
    r")"
)
_USERINFO = re.compile(r"[a-z][a-z0-9+.-]*://[^/\s?#@]+@", re.IGNORECASE)
_KEY_IN_QUERY = re.compile(r"[?&](api[-_]?key|key|token|access_token|secret|password)=[^&\s]+", re.IGNORECASE)


@final
class Secret:
    """A key in memory. It does not print, pickle or serialise; `reveal` is the one way to its text."""

    __slots__ = ("_reference", "_text")

    def __init__(self, text: str, reference: str = "") -> None:
        self._text = text
        self._reference = reference

    @property
    def reference(self) -> str:
        """Where it came from, fit to show: `env:NAME` or `file:/path`."""
        return self._reference

    def reveal(self) -> str:
        """The key itself, for the one header that carries it."""
        return self._text

    def matches(self, candidate: str | bytes) -> bool:
        """Whether `candidate` is this key, in a time that says nothing about either."""
        given = candidate.encode("utf-8", "surrogatepass") if isinstance(candidate, str) else candidate
        # Digests are of one length, so that the comparison does not tell the length of the key either.
        ours = hashlib.sha256(self._text.encode()).digest()
        return hmac.compare_digest(ours, hashlib.sha256(given).digest())

    def __repr__(self) -> str:
        return MASK

    def __str__(self) -> str:
        return MASK

    def __format__(self, format_spec: str) -> str:
        return MASK

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self.matches(other._text)

    def __hash__(self) -> int:
        return hash(self._reference)

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not serialised")

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self


class Resolution(Struct, frozen=True):
    """What became of a reference: the Secret, or why there is none and what to do."""

    secret: Secret | None = None
    reason: str = ""
    fix: str = ""
    variable: str | None = None
    """The environment variable it names."""
    file: Path | None = None
    """The file it names."""


def is_reference(text: str) -> bool:
    """Whether `text` is `env:NAME` or `file:/absolute/path`."""
    return _REFERENCE.fullmatch(text) is not None and not looks_like_key(text)


def looks_like_key(text: str) -> bool:
    """Whether a credential is written out in `text`: a vendor's key, a password in a URL, a private key."""
    return any(pattern.search(text) for pattern in (_KNOWN_KEY, _USERINFO, _KEY_IN_QUERY))


def mask_keys(text: str) -> str:
    """`text` without the credentials that are written out in it."""
    for pattern in (_KNOWN_KEY, _USERINFO, _KEY_IN_QUERY):
        text = pattern.sub(MASK, text)
    return text


def show(value: object) -> str:
    """`value` as a complaint may quote it: short, on one line, and masked where it could be a credential."""
    text = value if isinstance(value, str) else str(value)
    if looks_like_key(text):
        return MASK
    cut = text if len(text) <= QUOTED_MAX_CHARS else text[: QUOTED_MAX_CHARS - 3] + "..."
    quoted = cut.encode("unicode_escape").decode()
    return f'"{quoted}"' if isinstance(value, str) else quoted


def resolve(reference: str, env: Mapping[str, str]) -> Resolution:
    """Find the key that `reference` names.

    Args:
        reference: `env:NAME` or `file:/path`, already judged well-formed.
        env: The environment.
    """
    match = _REFERENCE.fullmatch(reference)
    if match is None:
        return Resolution(reason="its reference is malformed", fix="write env:NAME or file:/absolute/path")
    name, path = match.groups()
    if name is not None:
        return _from_environment(name, env)
    return _from_file(Path(path))


def _from_environment(name: str, env: Mapping[str, str]) -> Resolution:
    value = env.get(name, "").strip()
    if not value:
        state = "empty" if name in env else "not set"
        return Resolution(reason=f"{name} is {state}", fix=f"export {name}=...", variable=name)
    if not _usable(value):
        reason = f"{name} holds characters that no HTTP header can carry"
        return Resolution(reason=reason, fix=f"export {name} again: one line, no spaces inside", variable=name)
    return Resolution(Secret(value, f"env:{name}"), variable=name)


def _from_file(path: Path) -> Resolution:
    try:
        value = _read_private(path)
    except _UnsafeFileError as error:
        return Resolution(reason=f"{path} {error.reason}", fix=error.fix, file=path)
    except OSError as error:
        reason = f"{path} cannot be read ({error.strerror or type(error).__name__})"
        fix = f"write the key into {path}, owned by the user who runs the gateway, mode 0600"
        return Resolution(reason=reason, fix=fix, file=path)
    if not value or not _usable(value):
        return Resolution(reason=f"{path} does not hold a key", fix="one line with nothing but the key", file=path)
    return Resolution(Secret(value, f"file:{path}"), file=path)


class _UnsafeFileError(Exception):
    def __init__(self, reason: str, fix: str) -> None:
        super().__init__(reason)
        self.reason = reason
        self.fix = fix


def _read_private(path: Path) -> str:
    """Read a key file that only its owner can read. Checked on the open file, so that it can't be swapped."""
    # Without O_NONBLOCK a named pipe in this place would hold the gateway for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | getattr(os, "O_NONBLOCK", 0))
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise _UnsafeFileError("is not a regular file", "name a file that holds nothing but the key")
        if hasattr(os, "geteuid"):
            if status.st_uid not in {0, os.geteuid()}:
                raise _UnsafeFileError("belongs to another user", f"chown $(id -u) {path}")
            if status.st_mode & 0o077:
                mode = stat.S_IMODE(status.st_mode)
                raise _UnsafeFileError(f"can be read by others (mode {mode:04o})", f"chmod 600 {path}")
        if status.st_size > SECRET_MAX_BYTES:
            raise _UnsafeFileError(f"is over {SECRET_MAX_BYTES} bytes", "one line with nothing but the key")
        return file.read(SECRET_MAX_BYTES).decode("ascii", "replace").strip()


def _usable(value: str) -> bool:
    return len(value) <= SECRET_MAX_BYTES and _HEADER_SAFE.fullmatch(value) is not None
