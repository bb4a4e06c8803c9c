"""Whose processes are alive: the owners of what is handed out of a file of the embedded broker."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import secrets
from typing import Final

from eventflows.errors import PermissionDeniedError


class Owners:
    """Who holds messages: each owner locks a small file for its life, so that others see its death at once.

    A record lock belongs to its process alone: a forked child does not keep it. Closing any descriptor of the file
    would drop it, so no process opens the file of an owner of its own.

    Args:
        path: Of the broker's file.
    """

    _here: Final[dict[int, int]] = {}
    _pid = 0

    def __init__(self, path: str) -> None:
        self._folder = pathlib.Path(f"{path}.owners")

    def _mine(self) -> dict[int, int]:
        if Owners._pid != os.getpid():
            Owners._here.clear()
            Owners._pid = os.getpid()
        return Owners._here

    def enter(self) -> int:
        """Make an owner; it lives until it leaves or this process ends."""
        owner = secrets.randbits(62)
        new = self._folder / f".{owner:x}"
        try:
            self._folder.mkdir(exist_ok=True)
            self._sweep()
            descriptor = os.open(new, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            new.rename(self._folder / f"{owner:x}")  # nobody looks at it before it is locked
        except OSError as error:
            raise PermissionDeniedError(
                f"{self._folder} cannot be written ({type(error).__name__}). Allow this user to write there."
            ) from error
        self._mine()[owner] = descriptor
        return owner

    def _sweep(self) -> None:
        """Remove what owners left behind that were killed."""
        for name in os.listdir(self._folder):
            with contextlib.suppress(ValueError):
                self.dead(int(name, 16))

    def leave(self, owner: int) -> None:
        """End an owner of this process."""
        descriptor = self._mine().pop(owner, None)
        if descriptor is not None:
            os.close(descriptor)
            (self._folder / f"{owner:x}").unlink(missing_ok=True)

    def count(self) -> int:
        """Count the owners, dead ones included."""
        try:
            return len(os.listdir(self._folder))
        except OSError:
            return 0

    def dead(self, owner: int) -> bool:
        """Say whether an owner's process has ended."""
        if owner in self._mine():
            return False
        try:
            descriptor = os.open(self._folder / f"{owner:x}", os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        except OSError:
            return False
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        else:
            (self._folder / f"{owner:x}").unlink(missing_ok=True)
            return True
        finally:
            os.close(descriptor)
