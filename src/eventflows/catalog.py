"""The catalogue: named connections, grants and enabled flows, in one file that people read and review.

`eventflows.toml` is looked for where the process runs and in the folders above, or is what `EVENTFLOWS_CATALOG` names.
Grants guard against mistakes, not against attackers: whoever can change the file can grant.
"""

from __future__ import annotations

import difflib
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal, cast

import attrs

from eventflows.errors import ConfigError, GrantError
from eventflows.secret import Secret

FILE: Final = "eventflows.toml"
VARIABLE: Final = "EVENTFLOWS_CATALOG"
ALGORITHM: Final = "EVENTFLOWS_ALGORITHM"
KINDS: Final = ("kafka", "sqs", "servicebus", "eventhubs", "local")
ROLES: Final = ("subscriber", "publisher")
Role = Literal["subscriber", "publisher"]

_REFERENCES: Final = ("env", "file", "command")
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ALGORITHM: Final = re.compile(r"[^/\s:]+/[^/\s:]+|[^/\s:]+:[^/\s:]+|.*\.py:[^/\s:]+")
_SECRET: Final = re.compile(r"pass(word|phrase)?|secret|token|credential|connection[_-]?string|key$|sas", re.IGNORECASE)
_NO_SECRET: Final = re.compile(r"(_|-|^)(file|path|id|name)$", re.IGNORECASE)


@attrs.frozen(kw_only=True)
class Connection:
    """A broker by name: where it is, and how to get in."""

    name: str
    kind: str
    """The scheme of its URLs: "kafka", "sqs", "servicebus", "eventhubs" or "local"."""
    place: str = ""
    """What stands between `://` and the topic or queue: hosts, region and account, namespace; empty for "local"."""
    options: Mapping[str, object] = attrs.field(factory=dict)
    """The adapter's own; secrets are references to an environment variable, a file or a program."""


@attrs.frozen(kw_only=True)
class Grant:
    """That an algorithm may read, or write, one topic or queue."""

    algorithm: str
    """As `algorithm=` says it: "owner/name"; every version of it, unpublished builds included."""
    role: Role
    place: str
    """`connection/topic`, or the URL of a topic or queue without its options."""


@attrs.frozen(kw_only=True)
class CatalogFlow:
    """A flow of the catalogue: what runs, on what, and whether it may."""

    name: str
    algorithm: str
    """`module:function` or `file.py:function` here, or "owner/name" hosted."""
    version: str = "latest"
    """Of a hosted algorithm: "latest", a semantic version or a build."""
    source: str | None = None
    """A URL; None: the function is a flow and has its own."""
    destination: str | None = None
    dead_letter: str | None = None
    """A URL, "halt" or "drop"; None: the broker's own place, else halt."""
    timeout: float | None = None
    """Seconds that one call may take; None: as long as it likes here, 420 hosted."""
    enabled: bool = True


@attrs.frozen(kw_only=True)
class Catalog:
    """What a catalogue file says; read once, never changed. `CatalogFile` changes the file."""

    path: str
    connections: Mapping[str, Connection] = attrs.field(factory=dict)
    grants: tuple[Grant, ...] = ()
    flows: Mapping[str, CatalogFlow] = attrs.field(factory=dict)
    require_grants: bool = False
    """Whether every flow that runs under it needs grants, not only one that uses a named connection."""

    def connection(self, name: str) -> Connection:
        """Give a connection by its name.

        Raises:
            ConfigError: There is none of that name; the text names the nearest.
        """
        found = self.connections.get(name)
        if found is None:
            raise ConfigError(
                f"{self.path} has no connection {name!r}{_nearest(name, self.connections)} "
                "See: eventflows connections list"
            )
        return found

    def allow(self, flow: str, algorithm: str | None, uses: Iterable[tuple[Role, str, bool]]) -> None:
        """Let a flow start, or say why not.

        Args:
            flow: Its name, for the error and to find its entry.
            algorithm: What `algorithm=` or `EVENTFLOWS_ALGORITHM` says; None: neither.
            uses: The roles in which it uses places, each with whether it does so through a named connection.

        Raises:
            GrantError: It is disabled, names no algorithm, or has no grant; the text says the command that mends it.
        """
        entries = [entry for entry in self.flows.values() if entry.name == flow]
        entries = entries or [entry for entry in self.flows.values() if entry.algorithm in (flow, algorithm)]
        if entries and not any(entry.enabled for entry in entries):
            raise GrantError(
                f"flow {flow} is disabled in {self.path}. To enable it: eventflows flows enable {entries[0].name}"
            )
        for role, place, named in uses:
            if not (named or self.require_grants):
                continue
            if algorithm is None:
                raise GrantError(
                    f"flow {flow} uses {place}, which {self.path} guards, and names no algorithm. "
                    f'Give algorithm="owner/name" to its decorator, or set {ALGORITHM}.'
                )
            if Grant(algorithm=algorithm, role=role, place=place) not in self.grants:
                raise GrantError(
                    f"flow {flow}: {self.path} has no grant for {algorithm} as {role} of {place}. "
                    f"To grant it: eventflows grants add {algorithm} {role} '{place}'"
                )


def find(start: str | os.PathLike[str] | None = None) -> pathlib.Path | None:
    """Find the catalogue's file: what `EVENTFLOWS_CATALOG` names, else the nearest `eventflows.toml` upwards.

    Args:
        start: The folder to begin in; None: where the process runs.

    Raises:
        ConfigError: The variable names a file that is not there.
    """
    given = os.environ.get(VARIABLE)
    if given:
        path = pathlib.Path(given)
        if not path.is_file():
            raise ConfigError(f"{VARIABLE}={given}: there is no such file. Correct it, or unset it.")
        return path
    folder = pathlib.Path(start) if start is not None else pathlib.Path.cwd()
    return next((at / FILE for at in (folder, *folder.parents) if (at / FILE).is_file()), None)


def load(path: str | os.PathLike[str] | None = None) -> Catalog | None:
    """Read the catalogue; None when there is none.

    Args:
        path: The file; None: the one that `find` finds.

    Raises:
        ConfigError: The file is broken; the text has the line, or the entry and what was expected.
    """
    where = pathlib.Path(path) if path is not None else find()
    if where is None:
        return None
    try:
        text = where.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{where}: not UTF-8 at byte {error.start}. It is a TOML file.") from None
    except OSError as error:
        raise ConfigError(f"{where}: {error.strerror}.") from None
    return read(text, str(where))


def read(text: str, path: str) -> Catalog:
    """Make a catalogue of a file's text.

    Args:
        text: TOML.
        path: The file's name, for errors.

    Raises:
        ConfigError: As `load`.
    """
    import tomllib

    try:
        document = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        why = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "nested too deeply"
        why = why.replace("at end of document", f"at line {text.count(chr(10)) + 1}, the end")
        raise ConfigError(f"{path}: not TOML: {why}.") from None
    known = ("connections", "grants", "flows", "require-grants")
    for name in document:
        if name not in known:
            raise ConfigError(f"{path}: unknown entry {name!r}{_nearest(name, known)} It has: {', '.join(known)}.")
    return Catalog(
        path=path,
        connections={
            name: _connection(name, row, f"{path}: [connections.{name}]")
            for name, row in _tables(document, "connections", path).items()
        },
        grants=tuple(_grants(document, path)),
        flows={
            name: _flow(name, row, f"{path}: [flows.{name}]") for name, row in _tables(document, "flows", path).items()
        },
        require_grants=_of_type(
            document.get("require-grants", False), bool, f"{path}: require-grants", "true or false"
        ),
    )


def _tables(document: Mapping[str, Any], name: str, path: str) -> dict[str, dict[str, Any]]:
    tables = document.get(name, {})
    _of_type(tables, dict, f"{path}: {name}", f"tables, such as [{name}.one]")
    for key, table in tables.items():
        _of_type(table, dict, f"{path}: {name}.{key}", f"a table: [{name}.{key}]")
        if not _NAME.fullmatch(key):
            raise ConfigError(f"{path}: [{name}.{key}]: a name has letters, digits, '.', '_' and '-'.")
    return cast("dict[str, dict[str, Any]]", tables)


def _of_type(value: Any, kind: type[Any], where: str, expected: str) -> Any:  # noqa: ANN401 - what TOML has
    if not isinstance(value, kind) or (kind is not bool and isinstance(value, bool)):
        raise ConfigError(f"{where}: expected {expected}.")
    return value


def _connection(name: str, row: Mapping[str, Any], where: str) -> Connection:
    kind = row.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"{where}: kind is one of {', '.join(KINDS)}.")
    place = _of_type(row.get("place", ""), str, f"{where} place", "text")
    if not place and kind != "local":
        raise ConfigError(f"{where}: place is missing: what stands between {kind}:// and the topic or queue.")
    if "@" in place or "?" in place or "#" in place or "://" in place:
        raise ConfigError(f"{where}: place is hosts, a region or a namespace alone; no scheme, options or passwords.")
    options = {key: _option(key, value, where) for key, value in row.items() if key not in ("kind", "place")}
    if kind == "local" and isinstance(options.get("file"), str):
        options["file"] = _beside(where, str(options["file"]))
    return Connection(name=name, kind=kind, place=place.strip("/"), options=options)


def _option(name: str, value: object, where: str) -> object:
    if isinstance(value, dict):
        reference = next(iter(value), None)
        if len(value) != 1 or reference not in _REFERENCES:
            raise ConfigError(
                f'{where} {name}: a secret is {{ env = "NAME" }}, {{ file = "path" }} or {{ command = [...] }}.'
            )
        return _reference(str(reference), value[reference], f"{where} {name}")
    if _SECRET.search(name) and not _NO_SECRET.search(name):
        raise ConfigError(
            f'{where} {name}: secrets are not written down here. Give {{ env = "NAME" }}, {{ file = "path" }} or '
            '{ command = ["program", "argument"] }.'
        )
    if not isinstance(value, (str, int, float, bool)):
        raise ConfigError(f"{where} {name}: expected text, a number, true or false, or a reference to a secret.")
    return value


def _reference(kind: str, value: object, where: str) -> Secret:
    if kind == "command":
        words = value if isinstance(value, list) else [value]
        if not words or not all(isinstance(word, str) and word for word in words):
            raise ConfigError(f'{where}: command is a list of texts, such as ["pass", "show", "kafka"].')
        return Secret.command(*words)
    if not isinstance(value, str) or not value:
        raise ConfigError(f"{where}: {kind} is text.")
    return Secret.env(value) if kind == "env" else Secret.file(_beside(where, value))


def _beside(where: str, path: str) -> str:
    """Read a path from the folder that the catalogue is in: flows start in others, too."""
    return str(pathlib.Path(where.partition(": ")[0]).parent / path)


def _grants(document: Mapping[str, Any], path: str) -> Iterable[Grant]:
    rows = _of_type(document.get("grants", []), list, f"{path}: grants", "tables: [[grants]]")
    for number, row in enumerate(rows, 1):
        where = f"{path}: grant {number}"
        _of_type(row, dict, where, "a table: [[grants]]")
        _known(row, ("algorithm", "role", "place"), where)
        yield grant(row.get("algorithm"), row.get("role"), row.get("place"), where)


def grant(algorithm: object, role: object, place: object, where: str = "grant") -> Grant:
    """Make a grant of what was written.

    Raises:
        ConfigError: A part is missing or wrong; the text begins with `where`.
    """
    if not isinstance(algorithm, str) or not _ALGORITHM.fullmatch(algorithm):
        raise ConfigError(f'{where}: algorithm is "owner/name", or "module:function"; every version of it is meant.')
    if role not in ROLES:
        raise ConfigError(f"{where}: role is subscriber or publisher.")
    if not isinstance(place, str) or "/" not in place.strip("/") or "?" in place or "@" in place:
        raise ConfigError(f"{where}: place is connection/topic, or the URL of a topic or queue without its options.")
    return Grant(algorithm=algorithm, role=role, place=place)


def _flow(name: str, row: Mapping[str, Any], where: str) -> CatalogFlow:
    known = [field.name.replace("_", "-") for field in attrs.fields(CatalogFlow) if field.name != "name"]
    _known(row, known, where)
    algorithm = row.get("algorithm")
    if not isinstance(algorithm, str) or not _ALGORITHM.fullmatch(algorithm):
        raise ConfigError(f'{where}: algorithm is "module:function" here, or "owner/name" hosted.')
    values: dict[str, Any] = {}
    for key in ("version", "source", "destination", "dead-letter"):
        if key in row:
            values[key.replace("-", "_")] = _of_type(row[key], str, f"{where} {key}", "text")
    if "timeout" in row:
        timeout = row["timeout"]
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)) or not 0 < timeout < float("inf"):
            raise ConfigError(f"{where} timeout: expected seconds, more than 0.")
        values["timeout"] = float(timeout)
    values["enabled"] = _of_type(row.get("enabled", True), bool, f"{where} enabled", "true or false")
    return CatalogFlow(name=name, algorithm=algorithm, **values)


def _known(row: Mapping[str, Any], known: Iterable[str], where: str) -> None:
    known = list(known)
    for key in row:
        if key not in known:
            raise ConfigError(f"{where}: unknown field {key!r}{_nearest(key, known)} It has: {', '.join(known)}.")


def _nearest(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else "."
