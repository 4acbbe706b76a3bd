"""Examples of commands: every command has some, and each of them is one that the command takes."""

import shlex
from collections.abc import Iterator

import click
import pytest

from gateway.cli import COMMANDS, main
from gateway.cli.examples import EXAMPLES

FILES = ("providers.yaml", "body.json", "activity.json", "invoice.csv")
"""Those that examples read."""


def every_command() -> Iterator[str]:
    root = click.Context(main)
    for name in COMMANDS:
        found = main.get_command(root, name)
        yield name
        if isinstance(found, click.Group):
            yield from (f"{name} {below}" for below in found.commands)


def test_every_command_has_examples_and_nothing_else_has():
    assert sorted(EXAMPLES) == sorted(every_command())


@pytest.mark.parametrize(("name", "line"), [(name, line) for name, lines in EXAMPLES.items() for line in lines])
def test_an_example_is_what_its_command_takes(tmp_path, monkeypatch, name, line):
    monkeypatch.chdir(tmp_path)
    for file in FILES:
        (tmp_path / file).touch()
    words = shlex.split(line.partition(" > ")[0])
    assert " ".join(words).startswith(f"mixgate {name}")
    command: click.Command = main
    context = click.Context(main, info_name=words.pop(0))
    while isinstance(command, click.Group):
        below = command.get_command(context, words[0])
        assert below is not None, line
        command = below
        context = click.Context(command, parent=context, info_name=words.pop(0))
    command.make_context(command.name, words, parent=context.parent).close()
    assert f"  {line}" in command.get_help(context) or name != command.name
