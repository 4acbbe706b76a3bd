"""The documents as tests see them: pages, their code blocks, links and headings."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
GENERATED = {
    ROOT / "docs/reference" / name for name in ("cli.md", "errors.md", "limits.md", "metrics.md", "providers-yaml.md")
}

_FENCE = re.compile(r"^```([a-z]*) ?([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)")
_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block marked `runnable`. `config` is the file that its gateway serves, if it names one."""

    page: Path
    line: int
    language: str
    config: str | None
    text: str
    output: tuple[str, ...]
    """Lines of the `text output` block right behind it: each must be found in what it prints."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(language: str) -> list[Block]:
    """Every runnable block of a language, on every page."""
    return [block for page in PAGES for block in _blocks(page) if block.language == language]


def _blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    found = list(_FENCE.finditer(text))
    for match, after in zip(found, [*found[1:], None], strict=True) if found else ():
        language, words, body = match.groups()
        mark, _, config = words.partition(" ")
        if mark != "runnable":
            continue
        expected = after is not None and (after[1], after[2]) == ("text", "output")
        output = tuple(after[3].splitlines()) if expected else ()
        line = text.count("\n", 0, match.start()) + 1
        yield Block(page, line, language, config or None, body, output)


def prose(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def links(page: Path) -> list[tuple[str, str]]:
    """Relative links: path (empty for the same page) and anchor (empty for none)."""
    return [(path, anchor or "") for path, anchor in _LINK.findall(prose(page))]


def anchors(page: Path) -> set[str]:
    """The anchors that a page's headings get."""
    headings = (heading.replace("`", "").lower() for heading in _HEADING.findall(prose(page)))
    return {"#" + re.sub(r"[^a-z0-9 _-]", "", heading).replace(" ", "-") for heading in headings}
