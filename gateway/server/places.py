"""Several sets of paths as one."""

from gateway.server.asgi import Place, Places


class AllPlaces:
    """Asks one after the other; the first that knows a path has it."""

    def __init__(self, *members: Places) -> None:
        self._members = [*members]

    def add(self, member: Places) -> None:
        """Ask this one too, after the others."""
        self._members.append(member)

    def find(self, path: str) -> Place | None:
        """Who may come there, and what answers."""
        for member in self._members:
            place = member.find(path)
            if place is not None:
                return place
        return None
