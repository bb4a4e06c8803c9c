"""`Secret`: a value that is used, and never shown."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Final, NoReturn

from eventflows.errors import ConfigError

_HIDDEN: Final = "Secret(***)"


class Secret:
    """A password, key or connection string that hides itself.

    `repr`, `str`, format and log show stars. A literal one cannot be pickled; one from the environment, a file or a
    program is pickled as the reference and read again where it arrives.

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
    def command(cls, *words: str) -> Secret:
        """Refer to what a program prints, run when the secret is revealed, without a shell, for 30 seconds at most.

        Args:
            words: The program and its arguments, such as `"pass", "show", "kafka"`; one line end is dropped.
        """
        if not words or not all(isinstance(word, str) and word for word in words):
            raise ConfigError('Secret.command("program", "argument", ...): give a program and its arguments, as text.')
        return cls._reference("command", json.dumps(words))

    @classmethod
    def _reference(cls, kind: str, value: str) -> Secret:
        secret = cls(value)
        secret._kind = kind
        return secret

    def reveal(self) -> str:
        """Give the secret itself; keep what this returns out of logs and errors.

        Raises:
            ConfigError: The variable, file or program that it refers to is not there, or fails. The text says which.
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
            return _without_end(text)
        if self._kind == "command":
            return self._printed()
        return self._value

    def _printed(self) -> str:
        import subprocess  # takes 4 ms, and most processes need none

        words = json.loads(self._value)
        try:
            done = subprocess.run(  # noqa: S603 - the user's own words, and no shell
                words, capture_output=True, timeout=30.0, check=True, stdin=subprocess.DEVNULL
            )
            return _without_end(done.stdout.decode())
        except (OSError, subprocess.SubprocessError, UnicodeDecodeError) as error:
            how = f"exit status {error.returncode}" if isinstance(error, subprocess.CalledProcessError) else None
            raise ConfigError(
                f"The program {words[0]!r} of a Secret.command() did not give the secret "
                f"({how or type(error).__name__}). Run it by hand to see why."
            ) from None

    def __repr__(self) -> str:
        """Show where it comes from, never what it is."""
        if self._kind == "value":
            return _HIDDEN
        shown = repr(json.loads(self._value)[0]) + ", ..." if self._kind == "command" else repr(self._value)
        return f"Secret.{self._kind}({shown})"

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
        if self._kind == "command":
            return Secret.command, tuple(json.loads(self._value))
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


def _without_end(text: str) -> str:
    return text.removesuffix("\n").removesuffix("\r")
