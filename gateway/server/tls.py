"""https: the certificate and its key, read with words where they are no good, and read anew when their files change.

A client that speaks plain http to the https port is told so in plain http.
"""

import logging
import ssl
from pathlib import Path
from typing import Any, Final, NoReturn

from gateway.errors import ConfigError, ConfigProblem

WRONG_SCHEME: Final = b"This port speaks TLS: use https://, not http://.\n"
_ANSWER: Final = (
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%b"
    % (len(WRONG_SCHEME), WRONG_SCHEME)
)
_log = logging.getLogger("mixgate.server")

State = tuple[tuple[int, int, int], ...]


class Certificate:
    """A certificate chain and its key, and the context that connections are made by.

    Raises:
        ConfigError: They cannot be used.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._cert = cert
        self._key = key
        self.context = _Context(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_2
        self._state = self._look()
        _load(self.context, cert, key)

    def refresh(self) -> bool:
        """Read the files anew if they changed; whether that was so. New connections get the new ones. Blocks a little.

        What is no good is refused and the old ones stay: both files are seldom written at the same moment.
        """
        state = self._look()
        if state == self._state:
            return False
        try:
            # By itself first: one that fails half-way leaves a context with a certificate and another one's key.
            _load(_Context(ssl.PROTOCOL_TLS_SERVER), self._cert, self._key)
            _load(self.context, self._cert, self._key)
        except ConfigError as error:
            _log.error("the changed certificate is refused, the old one stays: %s", error.problems[0].message)
            self._state = state
            return False
        self._state = state
        _log.info("the certificate was read anew")
        return True

    def _look(self) -> State:
        found: list[tuple[int, int, int]] = []
        for path in (self._cert, self._key):
            try:
                status = path.stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((status.st_ino, status.st_mtime_ns, status.st_size))
        return tuple(found)


class _Telling(ssl.SSLObject):
    """One connection's TLS."""

    outgoing: ssl.MemoryBIO | None = None

    def do_handshake(self) -> None:
        """As ever; but plain http gets an answer that its client can read."""
        try:
            super().do_handshake()
        except ssl.SSLError as error:
            if error.reason != "HTTP_REQUEST" or self.outgoing is None:
                raise
            self.outgoing.write(_ANSWER)
            self.outgoing = None
            # As if more were needed: what was written goes out, and whatever comes next ends it.
            raise ssl.SSLWantReadError from error


class _Context(ssl.SSLContext):
    """Makes _Telling of every connection."""

    sslobject_class: type[ssl.SSLObject] = _Telling

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **settings: Any) -> ssl.SSLObject:
        """As ever, and remember where its bytes go."""
        made = super().wrap_bio(incoming, outgoing, *args, **settings)
        if isinstance(made, _Telling):
            made.outgoing = outgoing
        return made


class _LockedKeyError(Exception):
    """The key asks for a passphrase, and there is nobody to ask."""


def _refuse_passphrase() -> NoReturn:
    raise _LockedKeyError


def _load(context: ssl.SSLContext, cert: Path, key: Path) -> None:
    try:
        context.load_cert_chain(cert, key, password=_refuse_passphrase)
    except _LockedKeyError:
        raise _refused("the key is locked by a passphrase", "take it off: openssl rsa -in KEY -out NEW") from None
    except ssl.SSLError as error:
        raise _refused(*_explain(error, cert, key)) from error
    except OSError as error:
        message = f"it cannot be read: {error.strerror or error}"
        raise _refused(message, f"let this user read {cert} and {key}") from error


def _explain(error: ssl.SSLError, cert: Path, key: Path) -> tuple[str, str]:
    if error.reason == "KEY_VALUES_MISMATCH":
        return "certificate and key do not belong together", f"look for the key that {cert} was made with"
    if error.reason == "EE_KEY_TOO_SMALL":
        return "its key is too short to be safe", "make a new one of at least 2048 bits"
    return (
        f"certificate or key is not PEM, or broken ({error.reason or 'cannot be read'})",
        f"look into {cert} (BEGIN CERTIFICATE, the server's own first) and {key} (BEGIN PRIVATE KEY)",
    )


def _refused(message: str, fix: str) -> ConfigError:
    return ConfigError((ConfigProblem("gateway.tls", f"The certificate or its key cannot be used: {message}.", fix),))
