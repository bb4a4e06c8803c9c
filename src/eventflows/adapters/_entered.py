"""What `with` does to every publisher and subscriber."""

from __future__ import annotations

from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self


class Entered(ABC):
    """Is opened where `with` begins, and closed where it ends."""

    @abstractmethod
    def open(self, *, timeout: float = 30.0) -> None:
        """Connect."""

    @abstractmethod
    def close(self, *, timeout: float = 30.0) -> None:
        """Disconnect."""

    def __enter__(self) -> Self:
        """Open it."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()
