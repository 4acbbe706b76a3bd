"""`mixgate pull`: download a model for the local backend, with progress; an interrupted download goes on later."""

import asyncio
import os
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

import click

from gateway.cli.output import EXIT_CONFIGURATION, EXIT_FAILED, fail, on_terminal
from gateway.config.load import load
from gateway.config.locations import find_config, home_folder
from gateway.errors import ConfigError
from gateway.keys.storage import has_issued_keys
from gateway.state.connection import FILE_NAME
from local_backend.file_errors import LocalBackendError
from local_backend.pull import Progress, Pulled, pull

MEGABYTE = 10**6
PLAIN_STEP_PERCENT = 10
STAGES = {"asking": "asking the hub", "checking": "checking", "downloading": "downloading", "done": "done"}

OnProgress = Callable[[Progress], None]


@click.command("pull")
@click.argument("model", metavar="REPO:QUANT")
@click.option("--config", type=click.Path(path_type=Path), help="Configuration file to look for the model's row in.")
@click.option("--revision", default="main", show_default=True, help="Branch, tag or commit of the repository.")
def command(model: str, config: Path | None, revision: str) -> None:
    """Download a GGUF into the models folder of MIXGATE_HOME.

    REPO:QUANT is a repository on the hub and a quantisation in it, for example
    mradermacher/Mixtral-8x7B-Instruct-v0.1-GGUF:Q4_K_M. Disk space is checked first and the checksum last. Stopped at
    any point, the same command goes on where it was. HF_ENDPOINT, HF_TOKEN and HF_HUB_OFFLINE are honoured.
    """
    repository, separator, quantisation = model.partition(":")
    if not separator or not quantisation or repository.count("/") != 1:
        fail(
            f"{model} does not name a repository and a quantisation",
            "write it as in mradermacher/Mixtral-8x7B-Instruct-v0.1-GGUF:Q4_K_M",
            EXIT_CONFIGURATION,
        )
    models = home_folder(os.environ) / "models"
    try:
        with _progress() as on_progress:
            pulled = asyncio.run(
                pull(repository, quantisation, models=models, on_progress=on_progress, revision=revision)
            )
    except LocalBackendError as error:
        click.echo(f"{click.style('error', fg='red')}: {error.message}", err=True)
        raise SystemExit(EXIT_FAILED) from None
    except KeyboardInterrupt:
        fail("stopped; what arrived is kept", "run the same command again to go on")
    click.echo(f"{pulled.path} is there and whole")
    click.echo(_what_next(pulled, find_config(config, os.environ, Path.cwd())))


@contextmanager
def _progress() -> Generator[OnProgress]:
    if not on_terminal():
        yield _Plain().report
        return
    # rich takes 0.1 s to import, which only a terminal should pay for.
    from rich.progress import (  # noqa: PLC0415
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bar  # noqa: PLC0415

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bar(*columns, TimeRemainingColumn()) as bar:
        task = bar.add_task(STAGES["asking"], total=None)

        def report(progress: Progress) -> None:
            total = progress.total_bytes or None
            bar.update(task, description=_words(progress), completed=progress.done_bytes, total=total)

        yield report


class _Plain:
    """A line per stage and per tenth, for a log."""

    def __init__(self) -> None:
        self._last: tuple[str, int] | None = None

    def report(self, progress: Progress) -> None:
        percent = 100 * progress.done_bytes // progress.total_bytes if progress.total_bytes else 0
        step = (_words(progress), percent // PLAIN_STEP_PERCENT)
        if step == self._last:
            return
        self._last = step
        click.echo(
            f"{step[0]}: {percent} % of {progress.total_bytes / MEGABYTE:.0f} MB, "
            f"{progress.bytes_per_s / MEGABYTE:.1f} MB/s"
        )


def _words(progress: Progress) -> str:
    part = f" ({progress.file_number} of {progress.files})" if progress.files > 1 else ""
    return f"{STAGES[progress.stage]} {progress.file}{part}".rstrip()


def _what_next(pulled: Pulled, config: Path) -> str:
    """Whether a row of the configuration names the file; otherwise the row to add."""
    try:
        catalogue = load(config, os.environ, has_issued_keys=has_issued_keys(home_folder(os.environ) / FILE_NAME))
    except ConfigError:
        return f"{config} has errors: `mixgate check` shows them"
    for model in catalogue.local_models:
        if model.file in {pulled.path.name, str(pulled.path)}:
            served = catalogue.endpoints[model.endpoint].model
            return f"{model.endpoint} in {config} names it: a running gateway takes it up and it stands behind {served}"
    name = pulled.path.stem.lower()
    row = f"      {name}: {{file: {pulled.path.name}, serves: {name}}}"
    return f"no row of {config} names it yet; add one under the local provider's `models`:\n{row}"
