"""Compiles the modules that every request passes through: compile.py prints the folder to put first on PYTHONPATH.

The folder is a copy of the packages with a shared object beside each compiled module. It is kept by what it was made
of, in the cache, so a second call takes no time. Where it cannot be made nothing is printed on standard output, why is
said on standard error, and the gateway runs from its sources, at two to three times the CPU per request.

mypyc compiles what mypy has checked, so there is one source and no second language. One thing is changed in the copy,
never in the sources (docs/adr/0026-compiled-modules.md): a msgspec Struct becomes a class of the compiler's own, whose
fields are read in one instruction where a Struct's cost a look-up by name. Its `__init__`, `__eq__` and `__hash__` are
written out here. One that crosses a wire, or is copied, lives in a module that is not compiled.
"""

import ast
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
PACKAGES: Final = ("gateway", "providers", "local_backend")
HASHED: Final = frozenset({".py", ".yaml", ".html", ".css", ".js", ".svg", ".gguf"})
REQUIRED: Final = "MIXGATE_REQUIRE_COMPILED"
"""Set to 1 where a build that is not possible is a failure: in CI."""
ALIVE_EVERY_S: Final = 15.0
LINES_SHOWN: Final = 30
KEPT_MAX: Final = 3


def settings() -> dict[str, list[str]]:
    """The `[tool.mixgate.compiled]` table of pyproject.toml: `modules`."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        return tomllib.load(file)["tool"]["mixgate"]["compiled"]


def modules() -> list[str]:
    """What is compiled, by path from the root."""
    return sorted({str(path.relative_to(ROOT)) for glob in settings()["modules"] for path in ROOT.glob(glob)})


class Struct:
    """A Struct of a module's source: where its parts stand, and what is written in its place."""

    def __init__(self, node: ast.ClassDef) -> None:
        self.node = node
        self.words = {word.arg: ast.unparse(word.value) for word in node.keywords if word.arg}
        self.fields = [
            part
            for part in node.body
            if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and not _is_class_var(part)
        ]

    def lines(self) -> dict[int, str]:
        """What to put in place of which line, counted from 1; what goes behind a line begins with a line's end."""
        changed = dict.fromkeys(range(self.node.lineno, self.node.body[0].lineno), "")
        changed[self.node.lineno] = f"class {self.node.name}:"
        for field in self.fields:
            changed.update(dict.fromkeys(range(field.lineno, field.end_lineno or 0), ""))
            changed[field.end_lineno or 0] = f"    {ast.unparse(field.target)}: {ast.unparse(field.annotation)}"
        last = self.fields[-1].end_lineno or 0
        after = self.node.body[self.node.body.index(self.fields[-1]) + 1 :]
        if after and isinstance(after[0], ast.Expr) and isinstance(after[0].value, ast.Constant):
            last = after[0].end_lineno or 0
            changed[last] = ""  # the words about the last field
            changed.update(dict.fromkeys(range(after[0].lineno, last), ""))
        changed[last] = changed[last] + "\n" + "\n".join(self._methods())
        return changed

    def _methods(self) -> list[str]:
        names = [ast.unparse(field.target) for field in self.fields]
        given = [self._parameter(field) for field in self.fields]
        ahead = "self, *, " if self.words.get("kw_only") == "True" else "self, "
        lines = [f"    def __init__({ahead}{', '.join(given)}) -> None:"]
        for field, name in zip(self.fields, names, strict=True):
            fresh = _fresh(field)
            lines.append(
                f"        self.{name} = {name}"
                if fresh is None
                else f"        self.{name} = {fresh} if {name} is None else {name}"
            )
        if self.words.get("eq") == "False" or any(
            isinstance(p, ast.FunctionDef) and p.name == "__eq__" for p in self.node.body
        ):
            return lines
        own, its = (", ".join(f"{whose}.{name}" for name in names) + "," for whose in ("self", "other"))
        lines += [
            "    def __eq__(self, other: object) -> bool:",
            f"        return isinstance(other, {self.node.name}) and ({own}) == ({its})",
        ]
        if self.words.get("frozen") == "True":
            lines += ["    def __hash__(self) -> int:", f"        return hash(({own}))"]
        return lines

    @staticmethod
    def _parameter(field: ast.AnnAssign) -> str:
        name, kind = ast.unparse(field.target), ast.unparse(field.annotation)
        if field.value is None:
            return f"{name}: {kind}"
        if _fresh(field) is not None:
            return f"{name}: {kind} | None = None"
        return f"{name}: {kind} = {ast.unparse(field.value)}"


def _is_class_var(part: ast.AnnAssign) -> bool:
    return "ClassVar" in ast.unparse(part.annotation)


def _fresh(field: ast.AnnAssign) -> str | None:
    """What makes a default that no two objects may share."""
    value = field.value
    if isinstance(value, ast.List | ast.Dict | ast.Set):
        return ast.unparse(value)
    if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("field"):
        return next(f"{ast.unparse(word.value)}()" for word in value.keywords if word.arg == "default_factory")
    return None


def lower(source: str) -> str:
    """The source of a module to be compiled."""
    lines = source.split("\n")
    for node in ast.parse(source).body:
        if isinstance(node, ast.ClassDef) and any(ast.unparse(base).endswith("Struct") for base in node.bases):
            for number, text in Struct(node).lines().items():
                lines[number - 1] = text
    return "\n".join(lines)


def copy_packages(into: Path) -> None:
    """Copy the packages, without what Python left beside them."""
    for name in PACKAGES:
        shutil.copytree(ROOT / name, into / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    shutil.copy(ROOT / "providers.yaml", into)


BUILD: Final = """
import sys
from mypyc.build import mypycify
from setuptools import setup
modules = mypycify(sys.argv[1:], opt_level="2", debug_level="0", multi_file=True)
setup(name="compiled", packages=[], ext_modules=modules, script_args=["-q", "build_ext", "--inplace", "-t", "build"])
"""


def key() -> str:
    """A name for what would be built: another source, compiler or Python, another name."""
    known = hashlib.sha256(repr((sys.version, sysconfig.get_platform(), sysconfig.get_config_var("SOABI"))).encode())
    known.update(version("mypy").encode())
    sources = [path for name in PACKAGES for path in sorted((ROOT / name).rglob("*")) if path.suffix in HASHED]
    for path in [Path(__file__), ROOT / "pyproject.toml", ROOT / "providers.yaml", *sources]:
        known.update(f"\0{path.relative_to(ROOT)}\0".encode() + path.read_bytes())
    return known.hexdigest()[:16]


def missing() -> str | None:
    """What is missing for a build, and how to get it."""
    if not any(map(shutil.which, ("cc", "gcc", "clang"))):
        return "there is no C compiler (Debian: apt-get install gcc)"
    header = Path(sysconfig.get_path("include")) / "Python.h"
    return None if header.exists() else f"{header} is missing (Debian: apt-get install python3-dev)"


def build(into: Path) -> None:
    """Copy, lower, compile.

    Raises:
        RuntimeError: With the last that the compiler said.
    """
    chosen = modules()
    copy_packages(into)
    for module in chosen:
        (into / module).write_text(lower((ROOT / module).read_text()))
    with tempfile.TemporaryFile("w+") as log:
        started_s = time.monotonic()
        process = subprocess.Popen([sys.executable, "-c", BUILD, *chosen], cwd=into, stdout=log, stderr=log)
        while True:
            try:
                process.wait(timeout=ALIVE_EVERY_S)
                break
            except subprocess.TimeoutExpired:
                print(f"  still compiling, {time.monotonic() - started_s:.0f} s so far", file=sys.stderr)
        if process.returncode != 0:
            log.seek(0)
            raise RuntimeError("".join(log.readlines()[-LINES_SHOWN:]) + "the modules could not be compiled")
    shutil.rmtree(into / "build")


def main() -> int:
    """Print the folder, built if need be. Never fails the caller for want of it, unless it is required."""
    kept = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mixgate" / "compiled"
    folder = kept / key()
    if not folder.exists():
        reason = missing() or _make(kept, folder)
        if reason is not None:
            print(f"running from the sources, at two to three times the CPU per request: {reason}", file=sys.stderr)
            return 1 if os.environ.get(REQUIRED) == "1" else 0
    folder.touch()
    print(folder)
    return 0


def _make(kept: Path, folder: Path) -> str | None:
    """Build the folder; why it could not be."""
    print("compiling what every request passes through: about a minute, once for this version", file=sys.stderr)
    try:
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept, prefix=".building-") as work:
            build(Path(work) / "made")
            if not folder.exists():  # somebody else was faster
                (Path(work) / "made").rename(folder)
        _forget(kept)
    except (OSError, RuntimeError) as error:
        return str(error)
    return None


def _forget(kept: Path) -> None:
    """Leave no more than the last few."""
    folders = sorted(
        (path for path in kept.iterdir() if not path.name.startswith(".")), key=lambda p: p.stat().st_mtime
    )
    for path in folders[:-KEPT_MAX]:
        shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
