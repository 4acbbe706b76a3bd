"""Where the process is in its life: taking work, draining, or done. The application reads it, the server moves it."""

import logging
from collections.abc import Callable

_log = logging.getLogger("mixgate.server")


class Lifecycle:
    """The one object by which server and application agree on shutting down.

    `draining` turns true with the first signal: readiness is over, answers still flow. `accepting` turns false when the
    sockets close. `on_deadline` callbacks run when the drain limit is reached: each ends a running answer in-band.
    """

    __slots__ = ("_deadline_callbacks", "accepting", "deadline_passed", "draining")

    def __init__(self) -> None:
        self.accepting = False
        self.draining = False
        self.deadline_passed = False
        self._deadline_callbacks: set[Callable[[], None]] = set()

    def on_deadline(self, callback: Callable[[], None]) -> None:
        """Have `callback` called once if the drain limit is reached; take it back with `forget`."""
        self._deadline_callbacks.add(callback)

    def forget(self, callback: Callable[[], None]) -> None:
        """Take back what `on_deadline` was given."""
        self._deadline_callbacks.discard(callback)

    def start(self) -> None:
        """The sockets are open."""
        self.accepting = True

    def begin_drain(self) -> None:
        """The first signal came: not ready any more, everything already here is still answered."""
        self.draining = True

    def stop_accepting(self) -> None:
        """The sockets are closed."""
        self.accepting = False

    def pass_deadline(self) -> None:
        """The drain limit is reached: what still runs must end now, and say so."""
        self.deadline_passed = True
        callbacks, self._deadline_callbacks = self._deadline_callbacks, set()
        for callback in callbacks:
            try:
                callback()
            except Exception:  # noqa: BLE001 - one failing answer must not keep the others open; logged
                _log.exception("a callback for the end of the drain failed; the others still run")
