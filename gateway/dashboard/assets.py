"""The pages' files: read once, named by their content, so that a browser may keep them for ever."""

import hashlib
from collections.abc import Mapping
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Final

from msgspec import Struct

PACKAGED: Final[Mapping[str, tuple[str, str]]] = {}
"""Files out of other installed packages, by the name they are served under: the package, and the path in it."""
PLACE: Final = "/dashboard/static/"
PAGE: Final = "index.html"
DIGEST_CHARS: Final = 16
"""Of a file's path, which change with its content."""
FILE_MAX_BYTES: Final = 4 * 1024 * 1024
"""One file. A larger one is not served."""
TYPES: Final[Mapping[str, str]] = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "json": "application/json",
    "txt": "text/plain; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "woff2": "font/woff2",
}
"""What is served, by the end of its name."""
_BARE: Final = b'<!doctype html><html lang="en"><meta charset="utf-8"><title>Mixgate</title><p>No pages are installed.'


class Asset(Struct, frozen=True):
    """One file."""

    body: bytes
    kind: str
    """Its media type."""


class Assets(Struct, frozen=True):
    """All files."""

    digest: str
    """Of all of them: it is in their paths, so that another version has other paths."""
    by_name: Mapping[str, Asset]
    page: Asset

    def find(self, path: str) -> tuple[Asset, bool] | None:
        """What is at a path below PLACE, and whether that path always means the same bytes; None: nothing."""
        rest = path.removeprefix(PLACE)
        name = rest.removeprefix(self.digest + "/")
        found = self.by_name.get(name)
        return None if found is None else (found, name != rest)


def load_assets() -> Assets:
    """Read them from the installed package."""
    found = {name: _read(file) for name, file in sorted(_list(files("gateway.dashboard") / "static").items())}
    for name, (package, path) in PACKAGED.items():
        found[name] = _read(files(package).joinpath(path))
    return assets_of({name: body for name, body in found.items() if len(body) <= FILE_MAX_BYTES})


def assets_of(found: Mapping[str, bytes]) -> Assets:
    """Files by name, and what follows from them."""
    known = {name: body for name, body in sorted(found.items()) if name.rpartition(".")[2] in TYPES}
    digest = hashlib.sha256()
    for name, body in known.items():
        digest.update(b"%b\0%d\0%b" % (name.encode(), len(body), body))
    said = digest.hexdigest()[:DIGEST_CHARS]
    by_name = {name: _asset(name, body, said) for name, body in known.items()}
    return Assets(said, by_name, by_name.get(PAGE) or Asset(_BARE, TYPES["html"]))


def _asset(name: str, body: bytes, digest: str) -> Asset:
    if name.endswith(".html"):
        body = body.replace(PLACE.encode(), f"{PLACE}{digest}/".encode())
    return Asset(body, TYPES[name.rpartition(".")[2]])


def _list(folder: Traversable) -> dict[str, Traversable]:
    """Files of a folder and of the folders in it."""
    found: dict[str, Traversable] = {}
    for one in folder.iterdir() if folder.is_dir() else ():
        if one.is_dir():
            found |= {f"{one.name}/{inner.name}": inner for inner in one.iterdir() if inner.is_file()}
        else:
            found[one.name] = one
    return found


def _read(file: Traversable) -> bytes:
    return file.read_bytes()
