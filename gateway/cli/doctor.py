"""`mixgate doctor`: look for what keeps the gateway from running well here, and say how to mend each thing."""

import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import click
from msgspec import Struct

from gateway.cli.config_file import config_file
from gateway.cli.facts import answering
from gateway.cli.output import EXIT_FAILED, print_table
from gateway.config.catalogue import BUNDLED_FILE, DEMO_MODEL, Catalogue, LocalModel
from gateway.config.load import load
from gateway.config.locations import find_config, home_folder, model_file
from gateway.errors import ConfigError
from gateway.keys.storage import has_issued_keys
from gateway.server.run import bind_sockets
from gateway.state.connection import FILE_NAME, StoreLock
from gateway.state.errors import StoreInUseError
from local_backend import memory, preflight
from local_backend.file_errors import BadFileError
from local_backend.gguf import inspect

COMPILERS = ("c++", "g++", "clang++")
GIB = 2**30
MEMORY_LOW_BYTES = GIB // 2
DISK_LOW_BYTES = GIB

Verdict = Literal["ok", "warning", "problem"]


class Finding(Struct, frozen=True):
    """One thing that was looked at."""

    subject: str
    verdict: Verdict
    message: str
    fix: str = ""


@click.command("doctor")
@config_file("Configuration file; FILE alone does as well.")
def command(config: Path | None) -> None:
    """Look for missing extras, a build for another processor, too little memory, a busy port, unreadable keys.

    Each finding comes with its remedy. Exits 1 if there is a problem; warnings alone exit 0.
    """
    findings = list(examine(find_config(config, os.environ, Path.cwd()), os.environ))
    rows = [(finding.subject, finding.verdict, finding.message) for finding in findings]
    print_table("Mixgate doctor", ("what", "verdict", "finding"), rows)
    for finding in findings:
        if finding.fix:
            colour = "red" if finding.verdict == "problem" else "yellow"
            click.echo(f"{click.style(finding.subject, fg=colour, bold=True)}: {finding.fix}")
    problems = sum(finding.verdict == "problem" for finding in findings)
    if not problems:
        click.echo("no problem found")
        return
    click.echo(f"{problems} problem{'s' if problems > 1 else ''} found")
    raise SystemExit(EXIT_FAILED)


def examine(path: Path, env: Mapping[str, str]) -> Iterator[Finding]:
    """Every finding, in the order in which they are best mended."""
    yield Finding("python", "ok", sys.version.split()[0])
    catalogue = None
    try:
        catalogue = load(path, env, has_issued_keys=has_issued_keys(home_folder(env) / FILE_NAME))
    except ConfigError as error:
        for problem in error.problems:
            yield Finding("configuration", "problem", f"{problem.where}: {problem.message}", problem.fix)
    if catalogue is not None:
        yield Finding("configuration", "ok", f"{path} is sound")
        yield from _keys(catalogue, env)
        yield _port(catalogue, home_folder(env))
    yield from _state_folder(home_folder(env))
    package = preflight.check_package()
    yield from _engine(package)
    yield from _memory()
    if catalogue is not None:
        for model in catalogue.local_models:
            yield from _model(model, home_folder(env))
        if package is None:
            yield _answers(catalogue, env)


def _keys(catalogue: Catalogue, env: Mapping[str, str]) -> Iterator[Finding]:
    for entry in catalogue.providers.values():
        if entry.on:
            yield Finding(f"key of {entry.name}", "ok", "found" if entry.api_key else "none needed")
        else:
            # A variable that is not set is a choice; a file that is there and cannot be used is a mistake.
            chosen = entry.variables and not any(env.get(variable) for variable in entry.variables)
            verdict: Verdict = "warning" if chosen else "problem"
            yield Finding(f"key of {entry.name}", verdict, f"off: {entry.off_reason}", entry.fix or "")


def _port(catalogue: Catalogue, home: Path) -> Finding:
    host, port = catalogue.gateway.host, catalogue.gateway.port
    try:
        for sock in bind_sockets(host, port):
            sock.close()
    except ConfigError as error:
        problem = error.problems[0]
        if _is_running(home):
            return Finding(
                "port", "warning", problem.message, f"none needed if that is the gateway of {home}, which runs"
            )
        return Finding("port", "problem", problem.message, problem.fix)
    return Finding("port", "ok", f"{host}:{port} is free")


def _is_running(home: Path) -> bool:
    """Whether a gateway has the file of that folder open."""
    if not (home / FILE_NAME).is_file():
        return False
    lock = StoreLock(home / FILE_NAME)
    try:
        lock.take()
    except StoreInUseError:
        return True
    except OSError:
        return False
    lock.release()
    return False


def _state_folder(home: Path) -> Iterator[Finding]:
    existing = next(folder for folder in (home, *home.absolute().parents) if folder.exists())
    if not os.access(existing, os.W_OK | os.X_OK) or not existing.is_dir():
        fix = "make it writable for this user, or set MIXGATE_HOME to a folder that is"
        yield Finding("state folder", "problem", f"{home} cannot be written", fix)
        return
    free_bytes = shutil.disk_usage(existing).free
    message = f"{home}, {free_bytes / GIB:.1f} GiB free"
    if free_bytes < DISK_LOW_BYTES:
        yield Finding("state folder", "warning", message, "free some space, or set MIXGATE_HOME to a larger disk")
    else:
        yield Finding("state folder", "ok", message)


def _engine(package: str | None) -> Iterator[Finding]:
    compiler = next((name for name in COMPILERS if shutil.which(name)), None)
    if package is not None:
        yield _split("local extra", package)
        if compiler is None:
            fix = "install one (Debian: apt-get install g++; macOS: xcode-select --install), then run `make run`"
            yield Finding("compiler", "problem", "there is no C++ compiler to build the local engine with", fix)
        return
    yield Finding("local extra", "ok", "installed")
    yield Finding("compiler", "ok", compiler or "none, and none is needed: the engine is built")
    processor = preflight.check_cpu()
    if processor is not None:
        yield Finding("processor", "problem", processor, "remote providers work; local models need another processor")
        return
    complaint = preflight.self_test()
    if complaint is not None:
        yield _split("local engine", complaint)
    else:
        yield Finding("local engine", "ok", "computed a token of the bundled model")


def _memory() -> Iterator[Finding]:
    available = memory.available_bytes()
    message = f"{available / GIB:.1f} GiB available"
    if available < MEMORY_LOW_BYTES:
        yield Finding("memory", "warning", message, "stop other programs: a local model may be killed under load")
    else:
        yield Finding("memory", "ok", message)


def _model(model: LocalModel, home: Path) -> Iterator[Finding]:
    """Whether a pulled file is whole and fits; one that was not pulled is no finding."""
    path = model_file(model.file, home)
    if model.file == BUNDLED_FILE or not path.is_file():
        return
    subject = f"model {model.name}"
    try:
        facts = inspect(path)
    except BadFileError as error:
        yield Finding(subject, "problem", str(error), "pull it again, or take its row out of providers.yaml")
        return
    fit = memory.fit(
        facts, context_tokens=model.context_tokens, slots=model.slots, available_bytes=memory.available_bytes()
    )
    if fit.refusal is None:
        yield Finding(subject, "ok", f"{path.name} fits into memory")
    else:
        yield _split(subject, fit.refusal)


def _answers(catalogue: Catalogue, env: Mapping[str, str]) -> Finding:
    names = answering(catalogue, env)
    if [name for name in names if name != DEMO_MODEL]:
        return Finding("models", "ok", "can answer: " + ", ".join(names))
    variables = sorted({variable for entry in catalogue.providers.values() for variable in entry.variables})
    fix = f"export {' or '.join(variables)}, or" if variables else "add a provider, or"
    message = "only the demonstration model can answer" if names else "nothing can answer"
    return Finding("models", "warning", message, f"{fix} pull a Mixtral: mixgate pull REPO:QUANT")


def _split(subject: str, complaint: str) -> Finding:
    """A problem in the local backend's words: what is wrong, a colon, and what to do."""
    message, _, fix = complaint.partition(": ")
    return Finding(subject, "problem", message, fix)
