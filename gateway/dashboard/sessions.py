"""Who is signed in, and how often an address may try. In memory: a restart signs everybody out."""

import hmac
import secrets
from collections import OrderedDict, deque
from hashlib import sha256
from typing import Final

from msgspec import Struct

from gateway.dashboard.roles import Role

SESSIONS_MAX: Final = 256
"""People signed in at the same time; one more signs out whoever has been idle longest."""
SESSION_S: Final = 8 * 3600.0
"""How long one sign-in lasts."""
IDLE_S: Final = 1800.0
"""How long it lasts without a request."""
TRIES_MAX: Final = 5
"""Tries to sign in of one address a minute."""
TRIES_WINDOW_S: Final = 60.0
PEERS_MAX: Final = 4096
"""Addresses whose tries are remembered."""
TOKEN_BYTES: Final = 32


class Session(Struct):
    """One sign-in."""

    role: Role
    credential: bytes
    """Digest of the token it was made with: gone from the configuration, it lets nobody in any more."""
    csrf: str
    began_s: float
    seen_s: float


class Sessions:
    """All sign-ins of this process."""

    def __init__(self) -> None:
        # The one that was idle longest comes first. Kept by digest: what is in memory opens nothing.
        self._by_digest: OrderedDict[bytes, Session] = OrderedDict()

    def begin(
        self, role: Role, credential: bytes, now_s: float, *, instead_of: str | None = None
    ) -> tuple[str, Session]:
        """Sign somebody in. Gives what the cookie holds, always new, and the session.

        Args:
            role: What they may see.
            credential: Digest of the token.
            now_s: The monotonic clock.
            instead_of: The cookie that came with it, which is good no longer.
        """
        if instead_of is not None:
            self.end(instead_of)
        name = secrets.token_urlsafe(TOKEN_BYTES)
        session = Session(role, credential, secrets.token_urlsafe(TOKEN_BYTES), now_s, now_s)
        self._by_digest[_digest(name)] = session
        while len(self._by_digest) > SESSIONS_MAX:
            self._by_digest.popitem(last=False)
        return name, session

    def find(self, name: str, now_s: float) -> Session | None:
        """Whose cookie this is; None where it is nobody's any more. Counts as a request of theirs."""
        digest = _digest(name)
        session = self._by_digest.get(digest)
        if session is None:
            return None
        if now_s >= session.began_s + SESSION_S or now_s >= session.seen_s + IDLE_S:
            del self._by_digest[digest]
            return None
        session.seen_s = now_s
        self._by_digest.move_to_end(digest)
        return session

    def end(self, name: str) -> None:
        """Sign somebody out. Idempotent."""
        self._by_digest.pop(_digest(name), None)

    def __len__(self) -> int:
        return len(self._by_digest)


def is_same(one: str, other: str) -> bool:
    """Compares in a time that says nothing of where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


class Tries:
    """How often each address tried to sign in."""

    def __init__(self) -> None:
        self._by_peer: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, peer: str, now_s: float) -> float | None:
        """Count a try. Gives how long to wait where it is one too many, which is not counted; None: go on."""
        tries = self._by_peer.setdefault(peer, deque(maxlen=TRIES_MAX))
        self._by_peer.move_to_end(peer)
        if len(self._by_peer) > PEERS_MAX:
            self._by_peer.popitem(last=False)
        if len(tries) == TRIES_MAX and now_s < tries[0] + TRIES_WINDOW_S:
            return tries[0] + TRIES_WINDOW_S - now_s
        tries.append(now_s)
        return None


def _digest(name: str) -> bytes:
    return sha256(name.encode("utf-8", "replace")).digest()
