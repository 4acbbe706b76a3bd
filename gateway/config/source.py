"""Reads YAML into values that remember their lines, with every bound kept before anything is built.

Works on the parser's events instead of its constructed objects: duplicate keys, tags, anchors and depth are seen there,
and numbers are still the text that the user wrote, so that a price never passes through a float.
"""

import re
from decimal import Decimal
from typing import Any, TypeAlias

import yaml
from msgspec import Struct
from msgspec.structs import replace

from gateway.config.secrets import show
from gateway.errors import ConfigError, ConfigProblem

TEXT_MAX_BYTES = 1024 * 1024
NODES_MAX = 50_000
DEPTH_MAX = 24
NUMBER_MAX_CHARS = 32

Scalar: TypeAlias = str | int | Decimal | bool | None
Path: TypeAlias = tuple[str | int, ...]

# libyaml's parser is some ten times faster; the pure one, where that is all there is, yields the same events.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"[-+]?[0-9]+")
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WORDS: dict[str, Scalar] = {
    "": None,
    "~": None,
    "null": None,
    "Null": None,
    "NULL": None,
    "true": True,
    "True": True,
    "TRUE": True,
    "false": False,
    "False": False,
    "FALSE": False,
}
_HINTS = (
    ("cannot start any token", "indent with spaces, not tabs, and quote values that begin with @, ` or %"),
    ("quoted scalar", "close the quotation mark"),
    ("mapping values are not allowed", "quote the value: it contains a colon followed by a space"),
    ("expected ',' or", "close the bracket, or put a comma between the entries"),
    ("expected key", "line this up with the entries above it: something is indented too little or too much"),
    ("expected '-' indicator", "line this up with the items above it: something is indented too little or too much"),
    ("expected ':'", "write `key: value`, and put quotes around text that spans lines"),
)


class Node(Struct, frozen=True, gc=False):
    """One YAML value and its line (1-based): a mapping has `entries`, a list `items`, anything else `scalar`."""

    line: int
    scalar: Scalar = None
    entries: "dict[str, Node] | None" = None
    items: "tuple[Node, ...] | None" = None
    key_lines: dict[str, int] = {}
    """Of a mapping, the line of each key."""
    size: int = 1
    """How many values it holds, itself included, with every alias written out."""

    def plain(self) -> Any:
        """The value with no lines: str, int, Decimal, bool, None, list and dict."""
        if self.entries is not None:
            return {key: node.plain() for key, node in self.entries.items()}
        if self.items is not None:
            return [node.plain() for node in self.items]
        return self.scalar

    def line_of(self, path: Path) -> int:
        """The line of the key or item that `path` leads to, or of the deepest part of it that is there."""
        line, node = self.line, self
        for step in path:
            if isinstance(step, str) and node.entries is not None and step in node.entries:
                line, node = node.key_lines[step], node.entries[step]
            elif isinstance(step, int) and node.items is not None and step < len(node.items):
                node = node.items[step]
                line = node.line
            else:
                break
        return line


class _Open:
    """A mapping or sequence whose end has not come yet."""

    def __init__(self, line: int, anchor: str | None, *, mapping: bool) -> None:
        self.line = line
        self.anchor = anchor
        self.mapping = mapping
        self.items: list[Node] = []
        self.entries: dict[str, Node] = {}
        self.key_lines: dict[str, int] = {}
        self.key: Node | None = None
        self.size = 1

    @property
    def awaits_key(self) -> bool:
        return self.mapping and self.key is None

    def close(self) -> Node:
        if self.mapping:
            return Node(self.line, entries=self.entries, key_lines=self.key_lines, size=self.size)
        return Node(self.line, items=tuple(self.items), size=self.size)


def read_source(text: bytes, name: str) -> Node:
    """Read one YAML document.

    Args:
        text: The file's bytes, UTF-8, at most TEXT_MAX_BYTES.
        name: What to call the file in a complaint.

    Raises:
        ConfigError: Not YAML, more than one document, duplicate keys, tags, or a bound passed.
    """
    if len(text) > TEXT_MAX_BYTES:
        message = f"the file has {len(text)} bytes; at most {TEXT_MAX_BYTES} are read"
        raise ConfigError((ConfigProblem(name, message, "split off what is not configuration"),))
    try:
        decoded = text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = text.count(b"\n", 0, error.start) + 1
        problem = ConfigProblem(f"{name}:{line}", "this line is not UTF-8 text", "save the file as UTF-8")
        raise ConfigError((problem,)) from error
    return _Reader(name).read(decoded)


class _Reader:
    """Builds Nodes from events with a stack of its own, so that depth costs no Python or C stack."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._open: list[_Open] = []
        self._anchors: dict[str, Node] = {}
        self._problems: list[ConfigProblem] = []
        self._root: Node | None = None
        self._documents = 0

    def read(self, text: str) -> Node:
        try:
            for event in yaml.parse(text, Loader=_LOADER):
                self._take(event)
        except yaml.MarkedYAMLError as error:
            self._stop(*_explain(error))
        except yaml.reader.ReaderError as error:
            line = text.count("\n", 0, error.position) + 1
            self._stop(line, "a control character that YAML does not allow", "remove it")
        if self._problems:
            raise ConfigError(tuple(self._problems))
        return self._root or Node(1)

    def _take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        if getattr(event, "tag", None) is not None:
            self._stop(line, f"the tag {show(event.tag)} is not read here", "leave the tag out: quotes make text")
        if isinstance(event, yaml.ScalarEvent):
            if event.value == "<<" and not event.style and self._open and self._open[-1].awaits_key:
                self._complain(line, "merge keys (<<) are not read here", "write the keys out, or quote the name")
            value = event.value if event.style or not event.implicit[0] else resolve_scalar(event.value)
            self._add(Node(line, value), event.anchor)
        elif isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            if len(self._open) >= DEPTH_MAX:
                self._stop(line, f"nested more than {DEPTH_MAX} deep", "no setting is that deep: flatten it")
            mapping = isinstance(event, yaml.MappingStartEvent)
            self._open.append(_Open(line, event.anchor, mapping=mapping))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            done = self._open.pop()
            self._add(done.close(), done.anchor)
        elif isinstance(event, yaml.AliasEvent):
            self._alias(str(event.anchor), line)
        elif isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                self._stop(line, "a second document begins here", "remove the `---`: one document is read")

    def _alias(self, anchor: str, line: int) -> None:
        node = self._anchors.get(anchor)
        if node is None:
            self._stop(line, f"the alias {show(anchor)} refers to nothing above it", "define it above, or write it out")
        else:
            self._add(replace(node, line=line), None)

    def _add(self, node: Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        parent.size += node.size
        if parent.size > NODES_MAX:
            self._stop(node.line, f"more than {NODES_MAX} values, aliases written out", "make the file smaller")
        if not parent.mapping:
            parent.items.append(node)
        elif parent.key is None:
            parent.key = node
        else:
            self._enter(parent, parent.key, node)
            parent.key = None

    def _enter(self, parent: _Open, key: Node, node: Node) -> None:
        if key.entries is not None or key.items is not None:
            self._complain(key.line, "a list or mapping is used as a key", "use a plain name as the key")
            return
        name = "null" if key.scalar is None else str(key.scalar)
        if name in parent.entries:
            first = parent.key_lines[name]
            self._complain(
                key.line, f"duplicate key: {show(name)} is already there on line {first}", "keep one of the two"
            )
        else:
            parent.entries[name] = node
            parent.key_lines[name] = key.line

    def _complain(self, line: int, message: str, fix: str) -> None:
        self._problems.append(ConfigProblem(f"{self._name}:{line}", message, fix))

    def _stop(self, line: int, message: str, fix: str) -> None:
        self._complain(line, message, fix)
        raise ConfigError(tuple(self._problems))


def resolve_scalar(text: str) -> Scalar:
    """What unquoted text means: YAML 1.2's core schema in decimal, so `yes`, `1:30` and dates stay text."""
    if text in _WORDS:
        return _WORDS[text]
    if len(text) <= NUMBER_MAX_CHARS:
        if _INTEGER.fullmatch(text):
            return int(text)
        if _DECIMAL.fullmatch(text):
            return Decimal(text)
    return text


def _explain(error: yaml.MarkedYAMLError) -> tuple[int, str, str]:
    """The line that is to blame, what the parser says of it, and what usually mends that."""
    mark, begin = error.problem_mark or error.context_mark, error.context_mark
    line = 1 if mark is None else mark.line + 1
    message = f"not YAML: {error.problem or 'it cannot be read'}"
    if begin is not None and begin.line + 1 != line:
        message += f", in what begins on line {begin.line + 1}"
    said = f"{error.context} {error.problem}"
    return line, message, next((hint for part, hint in _HINTS if part in said), "compare the line with its neighbours")
