"""Who is signed in, in this process or in all that share their state."""

import hmac
import secrets
from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from gateway.dashboard.roles import Role
from gateway.dashboard.sources import Shelf

SESSIONS_MAX: Final = 256
"""People signed in at the same time; one more signs out whoever has been idle longest."""
SESSION_S: Final = 8 * 3600.0
"""How long one sign-in lasts."""
IDLE_S: Final = 1800.0
"""How long it lasts without a request."""
TOKEN_BYTES: Final = 32
"""Random bytes of a cookie, and of a CSRF token."""
SEEN_EVERY_S: Final = 60.0
"""How exactly it is shared when somebody was last seen."""
MARK_BYTES: Final = 32
"""By which a shared session is known to be ours."""
TENANT: Final = "dashboard sessions"
"""Apart from all else on the shelf."""
SEEN: Final = ":seen"
"""Behind a session's place: where it stands when somebody of it was last seen."""


class Moment(NamedTuple):
    """Now, by both clocks."""

    now_s: float
    """The monotonic one."""
    unix_s: float


class Session(Struct):
    """One sign-in. Times are by the clock of whoever keeps it."""

    role: Role
    credential: bytes
    """Digest of the token it was made with: gone from the configuration, it lets nobody in any more."""
    csrf: str
    began_s: float
    seen_s: float

    def is_over(self, now_s: float) -> bool:
        """Whether it has lasted, or been idle, too long."""
        return now_s >= self.began_s + SESSION_S or now_s >= self.seen_s + IDLE_S


class Sessions(Protocol):
    """All sign-ins. Clocks are passed in: `now_s` is monotonic, `unix_s` the wall clock."""

    async def begin(self, role: Role, credential: bytes, moment: Moment) -> tuple[str, Session]:
        """Sign somebody in. Gives what the cookie holds, always new, and the session.

        Args:
            role: What they may see.
            credential: Digest of the token.
            moment: Now.
        """
        ...

    async def find(self, name: str, moment: Moment) -> Session | None:
        """Whose cookie this is; None where it is nobody's any more. Counts as a request of theirs."""
        ...

    async def end(self, name: str) -> None:
        """Sign somebody out. Idempotent."""
        ...

    def left_s(self, session: Session, moment: Moment) -> float:
        """How long it lasts at most."""
        ...


class OwnSessions:
    """Those of this process, in its memory: a restart signs everybody out."""

    def __init__(self) -> None:
        # The one that was idle longest comes first. Kept by digest: what is in memory opens nothing.
        self._by_digest: OrderedDict[bytes, Session] = OrderedDict()

    async def begin(self, role: Role, credential: bytes, moment: Moment) -> tuple[str, Session]:
        """As `Sessions`."""
        name, session = _new(role, credential, moment.now_s)
        self._by_digest[_digest(name)] = session
        while len(self._by_digest) > SESSIONS_MAX:
            self._by_digest.popitem(last=False)
        return name, session

    async def find(self, name: str, moment: Moment) -> Session | None:
        """As `Sessions`."""
        digest = _digest(name)
        session = self._by_digest.get(digest)
        if session is None:
            return None
        if session.is_over(moment.now_s):
            del self._by_digest[digest]
            return None
        session.seen_s = moment.now_s
        self._by_digest.move_to_end(digest)
        return session

    async def end(self, name: str) -> None:
        """As `Sessions`."""
        self._by_digest.pop(_digest(name), None)

    def left_s(self, session: Session, moment: Moment) -> float:
        """How long it lasts at most."""
        return session.began_s + SESSION_S - moment.now_s

    def __len__(self) -> int:
        return len(self._by_digest)


class SharedSessions:
    """Those of all processes that share a shelf. Each is sealed: whoever can write there cannot make one.

    A session is put on the shelf once, at its begin, and never again; when it was last seen stands beside it. So a
    sign-out wins over all that goes on elsewhere at the same moment: nobody who is late can bring a session back.

    Args:
        shelf: Where they are.
        seal: A secret of the processes.
    """

    def __init__(self, shelf: Shelf, seal: bytes) -> None:
        self._shelf = shelf
        self._seal = seal

    async def begin(self, role: Role, credential: bytes, moment: Moment) -> tuple[str, Session]:
        """As `Sessions`."""
        name, session = _new(role, credential, moment.unix_s)
        digest = _digest(name).hex()
        self._put(digest, _encode(session), SESSION_S, moment.unix_s)
        self._note_seen(digest, session)
        return name, session

    async def find(self, name: str, moment: Moment) -> Session | None:
        """As `Sessions`."""
        digest = _digest(name).hex()
        data = await self._shelf.get(TENANT, digest, moment.unix_s)
        session: Session | None = self._open(digest, data, _decode)
        if session is None:
            return None
        data = await self._shelf.get(TENANT, digest + SEEN, moment.unix_s)
        seen_s: float | None = self._open(digest + SEEN, data, _decode_seen)
        if seen_s is None:
            return None
        session.seen_s = seen_s
        if session.is_over(moment.unix_s):
            return None
        if moment.unix_s >= seen_s + SEEN_EVERY_S:
            session.seen_s = moment.unix_s
            self._note_seen(digest, session)
        return session

    async def end(self, name: str) -> None:
        """As `Sessions`."""
        digest = _digest(name).hex()
        self._shelf.drop(TENANT, digest)
        self._shelf.drop(TENANT, digest + SEEN)

    def left_s(self, session: Session, moment: Moment) -> float:
        """How long it lasts at most."""
        return session.began_s + SESSION_S - moment.unix_s

    def _note_seen(self, digest: str, session: Session) -> None:
        seen_s = session.seen_s
        ttl_s = min(IDLE_S, max(1.0, session.began_s + SESSION_S - seen_s))
        self._put(digest + SEEN, _encode(seen_s), ttl_s, seen_s)

    def _put(self, place: str, data: bytes, ttl_s: float, unix_s: float) -> None:
        self._shelf.put(TENANT, place, self._mark(place, data) + data, ttl_s, unix_s)

    def _open(self, place: str, kept: bytes | None, decode: Callable[[bytes], Any]) -> Any:
        """What was put there by one of us, or None."""
        if kept is None:
            return None
        mark, data = kept[:MARK_BYTES], kept[MARK_BYTES:]
        if not hmac.compare_digest(mark, self._mark(place, data)):
            return None
        try:
            return decode(data)
        except msgspec.DecodeError:
            return None  # of another version

    def _mark(self, place: str, data: bytes) -> bytes:
        return hmac.digest(self._seal, place.encode() + data, "sha256")


def _new(role: Role, credential: bytes, now_s: float) -> tuple[str, Session]:
    """A cookie that nobody can guess, and its session."""
    return secrets.token_urlsafe(TOKEN_BYTES), Session(
        role, credential, secrets.token_urlsafe(TOKEN_BYTES), now_s, now_s
    )


def is_same(one: str, other: str) -> bool:
    """Compares in a time that says nothing of where they differ."""
    return hmac.compare_digest(one.encode("utf-8", "replace"), other.encode("utf-8", "replace"))


def _digest(name: str) -> bytes:
    return sha256(name.encode("utf-8", "replace")).digest()


_encode: Final = msgspec.msgpack.Encoder().encode
_decode: Final = msgspec.msgpack.Decoder(Session).decode
_decode_seen: Final = msgspec.msgpack.Decoder(float).decode
