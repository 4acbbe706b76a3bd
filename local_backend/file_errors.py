"""What can go wrong with a model file: on the disk, in memory, on its way here. A tree of its own, importing nothing.

    LocalBackendError
    ├── BadFileError        a model file that must not reach native code, with the cause named
    ├── DoesNotFitError     a good file, too large for the memory there is
    ├── UnusableError       this machine or this installation cannot run models
    └── PullError           a download did not happen
        ├── OfflineError        downloads are switched off
        ├── NotOnHubError       no such repository, or no such quantisation in it
        ├── DiskFullError       the file would not fit on the disk
        ├── ChecksumError       what arrived is not what was promised
        └── PullBusyError       another download is running

Each class has a stable `code`. Every message says what happened and what to do.
"""

from typing import ClassVar


class LocalBackendError(Exception):
    """Something about local models that has words for the user."""

    code: ClassVar[str] = "local_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadFileError(LocalBackendError):
    """A model file that must not reach native code."""

    code: ClassVar[str] = "local_bad_file"


class DoesNotFitError(LocalBackendError):
    """A good file, too large for the memory there is."""

    code: ClassVar[str] = "local_does_not_fit"


class UnusableError(LocalBackendError):
    """This machine or this installation cannot run models."""

    code: ClassVar[str] = "local_unusable"


class PullError(LocalBackendError):
    """A download did not happen."""

    code: ClassVar[str] = "pull_failed"


class OfflineError(PullError):
    """Downloads are switched off."""

    code: ClassVar[str] = "pull_offline"


class NotOnHubError(PullError):
    """No such repository, or no such quantisation in it."""

    code: ClassVar[str] = "pull_not_found"


class DiskFullError(PullError):
    """The file would not fit on the disk."""

    code: ClassVar[str] = "pull_disk_full"


class ChecksumError(PullError):
    """What arrived is not what was promised."""

    code: ClassVar[str] = "pull_checksum"


class PullBusyError(PullError):
    """Another download is running."""

    code: ClassVar[str] = "pull_busy"
