"""Whether one of the two sides of a connection has to wait for the other."""

import asyncio


class Flow:
    """The flow of one connection, both ways."""

    __slots__ = ("_transport", "_writable", "read_paused", "write_paused")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._writable = asyncio.Event()
        self.read_paused = False
        self.write_paused = False
        """The client reads slower than we write."""

    async def drain(self) -> None:
        """Wait until the client has caught up."""
        while self.write_paused:
            await self._writable.wait()

    def pause_reading(self) -> None:
        """Leave what comes where it is."""
        if not self.read_paused:
            self.read_paused = True
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        """Read on."""
        if self.read_paused:
            self.read_paused = False
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        """The client reads slower than we write."""
        self.write_paused = True
        self._writable.clear()

    def resume_writing(self) -> None:
        """The client caught up."""
        self.write_paused = False
        self._writable.set()
