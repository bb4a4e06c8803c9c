"""`Secret`: a value that is used, and never shown."""

from __future__ import annotations

import os
import pathlib
from typing import Final, NoReturn

from eventflows.errors import ConfigError

_HIDDEN: Final = "Secret(***)"


class Secret:
    """A password, key or connection string that hides itself.

    `repr`, `str`, format and log show stars. A literal one cannot be pickled; one from
    the environment or a file is pickled as the reference and read again where it arrives.

    Args:
        value: The secret itself.
    """

    __slots__ = ("_kind", "_value")

    def __init__(self, value: str) -> None:
        if not isinstance(value, str):
            raise ConfigError("Secret(value): the value is text.")
        self._kind = "value"
        self._value = value

    @classmethod
    def env(cls, name: str) -> Secret:
        """Refer to an environment variable, read when the secret is revealed.

        Args:
            name: The variable's name.
        """
        return cls._reference("env", name)

    @classmethod
    def file(cls, path: str | os.PathLike[str]) -> Secret:
        """Refer to a file, read when the secret is revealed; one line end at its end is dropped.

        Args:
            path: The file's path.
        """
        return cls._reference("file", os.fspath(path))

    @classmethod
    def _reference(cls, kind: str, value: str) -> Secret:
        secret = cls(value)
        secret._kind = kind
        return secret

    def reveal(self) -> str:
        """Give the secret itself; keep what this returns out of logs and errors.

        Raises:
            ConfigError: The variable or file that it refers to is not there. Set it, or correct its name.
        """
        if self._kind == "env":
            if self._value not in os.environ:
                raise ConfigError(f"The environment variable {self._value} is not set; a Secret.env() needs it.")
            return os.environ[self._value]
        if self._kind == "file":
            try:
                text = pathlib.Path(self._value).read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(
                    f"The file {self._value} of a Secret.file() cannot be read: {type(error).__name__}."
                ) from None
            return text.removesuffix("\n").removesuffix("\r")
        return self._value

    def __repr__(self) -> str:
        """Show where it comes from, never what it is."""
        return _HIDDEN if self._kind == "value" else f"Secret.{self._kind}({self._value!r})"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        """Format the hidden form."""
        return format(repr(self), spec)

    def __eq__(self, other: object) -> bool:
        """Compare kind and value."""
        if not isinstance(other, Secret):
            return NotImplemented
        return (self._kind, self._value) == (other._kind, other._value)

    def __hash__(self) -> int:
        """Hash as compared."""
        return hash((self._kind, self._value))

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle a reference; refuse a literal.

        Raises:
            ConfigError: It is a literal. Use `Secret.env` or `Secret.file`, which are read where they arrive.
        """
        if self._kind == "value":
            self._refuse()
        return (Secret.env if self._kind == "env" else Secret.file), (self._value,)

    def __copy__(self) -> Secret:
        """Give itself: it never changes, and a copy stays in this process."""
        return self

    def __deepcopy__(self, memo: object) -> Secret:
        """Give itself: it never changes, and a copy stays in this process."""
        return self

    def _refuse(self) -> NoReturn:
        raise ConfigError(
            "A literal Secret is not pickled, so that it reaches no file and no other process. "
            'Use Secret.env("NAME") or Secret.file(path): they are read where they arrive.'
        )
