"""Opens the StateStore of a fleet as the configuration describes it."""

import hashlib
import platform
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from gateway.config.stores import RedisSettings
from gateway.errors import ConfigError, ConfigProblem
from gateway.keys.key import KeyRecord
from gateway.keys.limits import Limiter
from gateway.keys.ring import KeyRing
from gateway.sharing.redis_store import RedisStore, Sharing
from gateway.sharing.shared_purse import SharedPurse

HOST_MAX_CHARS: Final = 40


def open_redis(
    settings: RedisSettings,
    home: Path,
    ring: KeyRing,
    purse: SharedPurse,
    limiter: Limiter,
) -> RedisStore:
    """A store that is not started yet.

    Args:
        settings: Where, and as whom.
        home: MIXGATE_HOME, of which the name is made where none is given.
        ring: The client keys.
        purse: Their money.
        limiter: How often they ask.

    Raises:
        ConfigError: redis-py does not take the URL.
    """
    from gateway.sharing.redis_link import links_of  # noqa: PLC0415 # it takes a while, and few need it

    try:
        make = links_of(settings.url.reveal())
    except ValueError:
        problem = ConfigProblem(
            "gateway.redis.url", f"{settings.url.reference} is no URL of a Redis", "write redis://host:6379/0 there"
        )
        raise ConfigError((problem,)) from None  # the text of redis-py's error may hold the password
    name = settings.replica or replica_name(platform.node(), home)
    chain_of: Callable[[str], Sequence[KeyRecord]] = ring.chain
    return RedisStore(
        make,
        Sharing(name, settings.prefix, settings.lease_extra_s),
        chain_of=chain_of,
        key_ids=lambda: [one.id for one in ring.records()],
        purse=purse,
        limiter=limiter,
        unix_time_s=time.time,
    )


def replica_name(host: str, home: Path) -> str:
    """The same in each life of a gateway, and another for every other: its host and its home."""
    place = hashlib.blake2b(str(home.resolve()).encode(), digest_size=4).hexdigest()
    return f"{re.sub('[^A-Za-z0-9.-]', '-', host)[:HOST_MAX_CHARS] or 'host'}-{place}"
