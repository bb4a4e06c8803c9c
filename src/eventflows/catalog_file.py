"""The catalogue's file, changed in place: comments stay, and neither a crash nor two writers tear it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import tempfile
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import attrs

from eventflows.catalog import FILE, Catalog, CatalogFlow, Grant, find, read
from eventflows.errors import ConfigError

if TYPE_CHECKING:
    from tomlkit import TOMLDocument

_NEW: Final = "# Connections, grants and flows of this project. See: eventflows connections --help\n"


class CatalogFile:
    """Changes a catalogue's file; each change is whole or not there at all, and what is beside it stays as it is.

    Every change is checked before it is written: a file that is broken, or would be, is left untouched.

    Args:
        path: The file; None: the one that `catalog.find` finds, else a new `eventflows.toml` where the process runs.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        found = pathlib.Path(path) if path is not None else find() or pathlib.Path.cwd() / FILE
        self.path = found.resolve()
        """Absolute."""
        self.shown = os.path.relpath(self.path) if path is None else os.fspath(path)
        """As errors name it."""

    def read(self) -> Catalog:
        """Read it; an empty catalogue where there is no file.

        Raises:
            ConfigError: It is broken; the text has the line, or the entry and what was expected.
        """
        return read(self._text(), self.shown)

    def put_connection(self, connection: str, fields: Mapping[str, Any], *, replace: bool = False) -> None:
        """Write a connection down.

        Args:
            connection: Its name.
            fields: `kind`, `place` and the adapter's options; secrets as `{"env": "NAME"}` and the like.
            replace: Whether one of that name may be there already.

        Raises:
            ConfigError: There is one already, or a field is wrong. Nothing was changed.
        """
        with self._edit() as document:
            table = _table(document, "connections")
            if connection in table and not replace:
                raise ConfigError(f"{self.shown} has a connection {connection!r} already; --replace changes it.")
            table[connection] = _row(fields)

    def remove_connection(self, connection: str) -> None:
        """Take a connection out.

        Raises:
            ConfigError: There is none of that name, or a grant or flow uses it. Nothing was changed.
        """
        with self._edit() as document:
            now = read(document.as_string(), self.shown)
            now.connection(connection)
            users = [f"{one.algorithm} ({one.role})" for one in now.grants if one.place.startswith(f"{connection}/")]
            users += [one.name for one in now.flows.values() if _uses(one, connection)]
            if users:
                raise ConfigError(
                    f"connection {connection!r} of {self.shown} is in use by {', '.join(users)}. Remove those first."
                )
            del document["connections"][connection]

    def add_grant(self, grant: Grant) -> bool:
        """Write a grant down; False when it is there already.

        Raises:
            ConfigError: It names a connection that is not there. Nothing was changed.
        """
        with self._edit() as document:
            now = read(document.as_string(), self.shown)
            if "://" not in grant.place:
                now.connection(grant.place.partition("/")[0])
            if grant in now.grants:
                return False
            import tomlkit

            rows = document.setdefault("grants", tomlkit.aot())
            rows.append(_row(attrs.asdict(grant)))
            return True

    def remove_grant(self, grant: Grant) -> None:
        """Take a grant out.

        Raises:
            ConfigError: It is not there. Nothing was changed.
        """
        with self._edit() as document:
            grants = list(read(document.as_string(), self.shown).grants)
            if grant not in grants:
                raise ConfigError(
                    f"{self.shown} has no grant for {grant.algorithm} as {grant.role} of {grant.place}. "
                    "See: eventflows grants list"
                )
            del document["grants"][grants.index(grant)]
            if len(grants) == 1:
                del document["grants"]

    def put_flow(self, name: str, fields: Mapping[str, Any], *, new: bool | None = None) -> None:
        """Write a flow down, or change the fields that are given; a field that is None goes away.

        Args:
            name: The flow's.
            fields: As in the file, such as `dead-letter`.
            new: Whether it must not be there yet; False: it must be; None: either.

        Raises:
            ConfigError: It is there, or is not, or a field is wrong. Nothing was changed.
        """
        with self._edit() as document:
            table = _table(document, "flows")
            if name in table and new:
                raise ConfigError(f"{self.shown} has a flow {name!r} already; eventflows flows edit changes it.")
            if name not in table:
                if new is False:
                    raise ConfigError(f"{self.shown} has no flow {name!r}. See: eventflows flows list")
                table[name] = _row({key: value for key, value in fields.items() if value is not None})
                return
            for key, value in fields.items():
                if value is None:
                    table[name].pop(key, None)
                else:
                    table[name][key] = value

    def _text(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            return ""
        except UnicodeDecodeError as error:
            raise ConfigError(f"{self.shown}: not UTF-8 at byte {error.start}. It is a TOML file.") from None
        except OSError as error:
            raise ConfigError(f"{self.shown}: {error.strerror}.") from None

    @contextlib.contextmanager
    def _edit(self) -> Iterator[TOMLDocument]:
        """Give the document to change; write it when the body ends well and what it became can be read."""
        import tomlkit

        try:
            with self._locked():
                text = self._text()
                read(text, self.shown)
                document = tomlkit.parse(text or _NEW)
                yield document
                changed = document.as_string()
                read(changed, self.shown)
                if changed != text:
                    self._write(changed)
        except OSError as error:
            raise ConfigError(f"{self.shown} cannot be changed: {error.strerror}. Nothing was changed.") from None

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep other writers out; the lock ends with the process, however it ends."""
        import fcntl

        folder = os.open(self.path.parent, os.O_RDONLY)  # the file itself is replaced, so its lock would not hold
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            yield
        finally:
            os.close(folder)

    def _write(self, text: str) -> None:
        """Put a new file in the place of the old one: a reader sees the one or the other."""
        mode = self.path.stat().st_mode & 0o777 if self.path.exists() else 0o644
        handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
                file.write(text)
                file.flush()
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            pathlib.Path(name).replace(self.path)
        except BaseException:
            pathlib.Path(name).unlink(missing_ok=True)
            raise
        folder = os.open(self.path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _table(document: TOMLDocument, name: str) -> Any:  # noqa: ANN401 - tomlkit's own tables
    import tomlkit

    if name not in document:
        document[name] = tomlkit.table(is_super_table=True)
    return document[name]


def _row(fields: Mapping[str, Any]) -> Any:  # noqa: ANN401 - tomlkit's own tables
    import tomlkit

    row = tomlkit.table()
    for key, value in fields.items():
        if isinstance(value, dict):
            inline = tomlkit.inline_table()
            inline.update(value)
            row[key] = inline
        else:
            row[key] = value
    row.add(tomlkit.nl())
    return row


def _uses(flow: CatalogFlow, connection: str) -> bool:
    mark = f"connection={connection}"
    urls = [url for url in (flow.source, flow.destination, flow.dead_letter) if url is not None]
    return any(mark in url.partition("?")[2].split("&") for url in urls)
