"""Which configuration file a command is about: `--config FILE`, or FILE alone."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def config_file(words: str) -> Callable[[Command], Command]:
    """Give a command both ways of naming the file; it is called with `config`, which is None where nobody named one.

    Args:
        words: What is said of the option.
    """

    def decorate(function: Command) -> Command:
        @wraps(function)
        def run(*, file: Path | None, config: Path | None, **others: Any) -> Any:
            if file is not None and config is not None and file != config:
                raise click.UsageError(f"two configuration files are named, {file} and {config}; name one")
            return function(config=file if config is None else config, **others)

        option = click.option("--config", metavar="FILE", type=click.Path(path_type=Path), help=words)
        argument = click.argument("file", required=False, type=click.Path(path_type=Path))
        return cast("Command", option(argument(run)))

    return decorate
