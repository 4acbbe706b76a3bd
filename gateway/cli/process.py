"""What the parent of several processes starts: `python -m gateway.cli.process TITLE FD PID`. Nobody else does."""

import os
import sys

from gateway.cli.output import EXIT_CONFIGURATION, print_problems
from gateway.errors import ConfigError
from gateway.logs import begin
from gateway.processes import run_child


def main(arguments: list[str]) -> int:
    """Be the owner or a worker; gives the exit status."""
    title, descriptor, parent_pid = arguments
    begin(os.environ, title)
    try:
        return run_child(int(descriptor), int(parent_pid), os.environ)
    except ConfigError as error:
        print_problems(error.problems, "error")
        return EXIT_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
