"""build_aux/compile.py: what it makes of a Struct, and that the modules it is told to compile are such as it can."""

import ast
import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import msgspec.inspect
import pytest

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("compile_modules", ROOT / "build_aux" / "compile.py")
assert _spec is not None
assert _spec.loader is not None
compiling = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(compiling)

SOURCE = '''"""Two."""

from msgspec import Struct, field


class Place(Struct, frozen=True, gc=False, kw_only=True):
    """Where it is."""

    name: str
    """Its name."""
    near: list[str] = []
    more: dict[str, int] = field(
        default_factory=dict,
    )
    deep: int | None = None
    """How deep."""

    def label(self) -> str:
        return f"{self.name} {self.deep}"


class Number(Struct, frozen=True, gc=False):
    one: int
'''


def modules() -> list[Path]:
    return [ROOT / module for module in compiling.modules()]


def test_a_struct_becomes_a_class_that_behaves_as_it_did() -> None:
    names: dict[str, type] = {}
    exec(compile(compiling.lower(SOURCE), "m", "exec"), names)  # noqa: S102 (what is to be judged)
    place, number = names["Place"], names["Number"]
    one = place(name="a", deep=3)
    assert (one.name, one.near, one.more, one.deep, one.label()) == ("a", [], {}, 3, "a 3")
    assert one == place(name="a", deep=3) != place(name="a")
    assert one.near is not place(name="b").near
    assert hash(number(1)) == hash(number(1))
    assert number(one=1) == number(1) != one
    with pytest.raises(TypeError):
        place("a")  # its members have names


def test_what_follows_a_struct_is_not_touched() -> None:
    source = SOURCE + "\n\ndef after() -> int:\n    return 1\n"
    assert compiling.lower(source).endswith("\n\ndef after() -> int:\n    return 1\n")


def test_each_pattern_names_a_module() -> None:
    for pattern in compiling.settings()["modules"]:
        assert list(ROOT.glob(pattern)), pattern


def test_nothing_interpreted_inherits_from_what_is_compiled() -> None:
    chosen = set(modules())
    compiled = {
        node.name for path in chosen for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)
    }
    for path in (path for name in compiling.PACKAGES for path in (ROOT / name).rglob("*.py")):
        if path in chosen:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                bases = {ast.unparse(base).partition("[")[0].rpartition(".")[2] for base in node.bases}
                assert not bases & compiled, f"{path.relative_to(ROOT)}: {node.name}"


def test_no_struct_of_a_compiled_module_crosses_a_wire() -> None:
    """The compiler drops the annotations by which msgspec decodes, so a Struct that is decoded lives elsewhere."""
    wire = {"array_like", "tag", "omit_defaults", "forbid_unknown_fields", "rename"}
    for path in modules():
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Struct") for base in node.bases):
                assert not wire & {word.arg for word in node.keywords}, f"{path.relative_to(ROOT)}: {node.name}"


def decoded_types() -> Iterator[tuple[str, object]]:
    """What the modules of the gateway decode, by module."""
    for path in (path for name in compiling.PACKAGES for path in sorted((ROOT / name).rglob("*.py"))):
        if "Decoder(" in path.read_text():
            name = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            for value in vars(importlib.import_module(name)).values():
                decoder = getattr(value, "__self__", value)
                if isinstance(decoder, msgspec.json.Decoder | msgspec.msgpack.Decoder):
                    yield name, decoder.type


def structs_in(kind: object, seen: set[type]) -> set[type]:
    """Every Struct that decoding this makes."""
    for part in msgspec.inspect.multi_type_info([kind]):
        waiting: list[object] = [part]
        while waiting:
            one = waiting.pop()
            if isinstance(one, msgspec.inspect.StructType):
                if one.cls in seen:
                    continue
                seen.add(one.cls)
            if isinstance(one, list | tuple):
                waiting += one
            elif isinstance(one, msgspec.Struct):
                waiting += [getattr(one, name) for name in one.__struct_fields__]
    return seen


def test_nothing_that_is_decoded_is_of_a_compiled_module() -> None:
    chosen = {".".join(path.relative_to(ROOT).with_suffix("").parts) for path in modules()}
    decoded: dict[type, str] = {}
    for name, kind in decoded_types():
        for struct in structs_in(kind, set()):
            decoded[struct] = name
    assert len(decoded) > 50
    assert not {f"{struct.__qualname__}, by {by}" for struct, by in decoded.items() if struct.__module__ in chosen}


def test_a_build_that_fails_is_told_and_the_sources_run(tmp_path, monkeypatch, capsys):
    def fail(into: Path) -> None:
        raise RuntimeError("nothing but errors")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MIXGATE_REQUIRE_COMPILED", raising=False)
    monkeypatch.setattr(compiling, "build", fail)
    monkeypatch.setattr(compiling, "missing", lambda: None)
    assert compiling.main() == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "nothing but errors" in told.err
    monkeypatch.setenv("MIXGATE_REQUIRE_COMPILED", "1")
    assert compiling.main() == 1


def test_without_a_compiler_it_says_so_and_the_sources_run(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "build_aux" / "compile.py")]
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": str(tmp_path)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""
    assert "no C compiler" in done.stderr
    environment["MIXGATE_REQUIRE_COMPILED"] = "1"
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode == 1
