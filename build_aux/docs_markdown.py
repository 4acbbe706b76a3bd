"""What the generated pages are made of: tables, and what a class says of itself."""

import inspect
from collections.abc import Iterable, Iterator

MARK = "<!-- Written by build_aux/generate_docs.py from the code. Change that, then run it again. -->"


def table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    """A Markdown table."""
    names = [*columns]
    yield "| " + " | ".join(names) + " |"
    yield "|" + "---|" * len(names)
    for row in rows:
        yield "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in row) + " |"
    yield ""


def meaning(kind: type) -> str:
    """What a class says of itself, without the list of its arguments."""
    return inspect.getdoc(kind).partition("\n\n")[0].replace("\n", " ")
