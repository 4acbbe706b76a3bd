"""The text of an issued client key: `mg-`, eight characters of a public id, a secret, and a checksum.

The checksum lets a scanner tell a leaked key from any other text without asking anybody. It guards nothing: what is
stored, and compared, is the HMAC of the whole text. Pure: random bytes are passed in.
"""

import hmac
import zlib
from typing import Final

from msgspec import Struct

from gateway.config.secrets import Secret

PREFIX: Final = "mg-"
ID_CHARS: Final = 8
SECRET_BYTES: Final = 32
SECRET_CHARS: Final = 43
"""32 bytes in base 62."""
CHECK_CHARS: Final = 6
"""A CRC-32 in base 62."""
KEY_CHARS: Final = len(PREFIX) + ID_CHARS + SECRET_CHARS + CHECK_CHARS
ID_END: Final = len(PREFIX) + ID_CHARS
ENTROPY_BYTES: Final = SECRET_BYTES + 8
"""Random bytes that one key takes: its secret and its id."""
_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PREFIX_BYTES: Final = PREFIX.encode()


class Minted(Struct, frozen=True):
    """A new key: its public id, and the text that is shown once."""

    id: str
    text: Secret


def mint(entropy: bytes, key_id: str | None = None) -> Minted:
    """A new key.

    Args:
        entropy: ENTROPY_BYTES random bytes.
        key_id: The public id, where it has one already.
    """
    if len(entropy) != ENTROPY_BYTES:
        raise ValueError(f"a key takes {ENTROPY_BYTES} random bytes")
    public = key_id or _spell(int.from_bytes(entropy[SECRET_BYTES:], "big") % 62**ID_CHARS, ID_CHARS)
    body = f"{PREFIX}{public}{_spell(int.from_bytes(entropy[:SECRET_BYTES], 'big'), SECRET_CHARS)}"
    return Minted(public, Secret(body + _check(body), f"client key {PREFIX}{public}"))


def is_key(text: str) -> bool:
    """Whether this is the text of a client key of ours, in use or not. Needs nothing but the text."""
    if len(text) != KEY_CHARS or not text.startswith(PREFIX) or not text.isascii() or not text[3:].isalnum():
        return False
    return text[-CHECK_CHARS:] == _check(text[:-CHECK_CHARS])


def public_id(credential: bytes) -> str:
    """The public id that a credential claims; empty where it has not the form of an issued key."""
    if len(credential) != KEY_CHARS or not credential.startswith(_PREFIX_BYTES):
        return ""
    return credential[len(PREFIX) : ID_END].decode("latin-1")


def digest_of(pepper: bytes, credential: bytes) -> bytes:
    """What is stored of a key: 32 bytes, of no use without the pepper, nor as a credential with it."""
    return hmac.digest(pepper, credential, "sha256")


def _check(body: str) -> str:
    return _spell(zlib.crc32(body.encode()), CHECK_CHARS)


def _spell(number: int, length: int) -> str:
    characters: list[str] = []
    for _ in range(length):
        number, rest = divmod(number, 62)
        characters.append(_ALPHABET[rest])
    return "".join(reversed(characters))
