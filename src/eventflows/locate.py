"""URL to adapter: the one module that knows every scheme, and the one that reads the environment."""

from __future__ import annotations

import difflib
import importlib
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import unquote

import attrs

from eventflows import catalog
from eventflows.errors import ConfigError
from eventflows.protocols import AdapterSpec, Capabilities, Location, Option, Publisher, Subscriber

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

Side = Literal["source", "destination"]

_BUILT_IN: Final = {
    "eventhubs": "eventflows.adapters.eventhubs",
    "kafka": "eventflows.adapters.kafka",
    "local": "eventflows.adapters.local",
    "servicebus": "eventflows.adapters.servicebus",
    "sqs": "eventflows.adapters.sqs",
    # A queue URL as the service writes it.
    "https": "eventflows.adapters.sqs",
    "http": "eventflows.adapters.sqs",
}
_ENTRY_POINTS: Final = "eventflows.adapters"
_SECRET_WORDS: Final = re.compile(
    r"pass(word|wd|phrase)?|secret|token|(api|access|account|private|master)[_-]?key|shared[_-]?access|credential"
    r"|connection[_-]?string|(?<![a-z])(sig(nature)?|sas|pwd)(?![a-z])",
    re.IGNORECASE,
)
CONNECTION: Final = "connection"
"""The option that names a connection of the catalogue; every scheme has it."""
_SCHEME: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")


def schemes() -> list[str]:
    """Give the schemes that can be used here, sorted: the built-in ones and those of installed packages."""
    return sorted({*_BUILT_IN, *(point.name for point in _installed())})


def _installed() -> Iterable[EntryPoint]:
    from importlib.metadata import entry_points  # takes 20 ms, and most flows need none

    return entry_points(group=_ENTRY_POINTS)


def parse(url: str) -> Location:
    """Take a URL apart, without knowing its scheme.

    Raises:
        ConfigError: It is not a URL, it has a secret in it, or an option comes twice.
    """
    if not isinstance(url, str):
        raise ConfigError(f"A source or destination is a URL as text, not {type(url).__name__}.")
    found = _SCHEME.match(url)
    if found is None:
        raise ConfigError(f"{_harmless(url)} is not a URL; expected scheme://place, such as local://orders.")
    rest, _, query_text = url[found.end() :].partition("?")
    if "#" in rest or "#" in query_text:
        raise ConfigError(f"{found.group()}...: a URL here has no part after '#'; write a literal one as %23.")
    authority, _, path = rest.partition("/")
    scheme = found[1].lower()
    # A password may have a slash or a question mark in it: then what follows the '@' is no longer the authority.
    if "@" in rest or any("@" in part.partition("=")[0] for part in query_text.split("&")):
        raise ConfigError(
            f"{scheme}://...@...: user names and passwords are never given in a URL. "
            "Give them as options, with Secret.env(...) or Secret.file(...); write a literal '@' as %40."
        )
    query = _query(scheme, query_text)
    return Location(scheme=scheme, authority=unquote(authority), path=unquote(path), query=query, text=url)


def _harmless(url: str) -> str:
    short = len(url) <= 40 and "@" not in url and "=" not in url
    return repr(url) if short else f"This text of {len(url)} characters"


def _query(scheme: str, text: str) -> dict[str, str]:
    query: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        raw_name, _, raw = part.partition("=")
        name, value = unquote(raw_name), unquote(raw)
        if _SECRET_WORDS.search(name):
            raise ConfigError(
                f"{scheme}://...?{name}=...: secrets are never given in a URL. "
                f"Give {name.replace('-', '_')}=Secret.env(...) or Secret.file(...) as an option."
            )
        if name in query:
            raise ConfigError(f"{scheme}://...: the option {name!r} comes twice in the URL; give it once.")
        query[name] = value
    return query


def adapter(location: Location) -> AdapterSpec:
    """Find the adapter of a URL's scheme.

    Raises:
        ConfigError: No adapter has this scheme; the text names the nearest that there is.
    """
    return _adapter(location.scheme)


def _adapter(scheme: str) -> AdapterSpec:
    if scheme in _BUILT_IN:
        spec = importlib.import_module(_BUILT_IN[scheme]).ADAPTER
    else:
        points = [point for point in _installed() if point.name == scheme]
        if not points:
            raise ConfigError(
                f"No broker has the scheme {scheme + '://'!r}{_nearest(scheme, schemes(), '{}://')} "
                f"Known here: {', '.join(f'{known}://' for known in schemes())}."
            )
        spec = _loaded(points[0])
    if not isinstance(spec, AdapterSpec):
        raise ConfigError(f"The adapter of {scheme}:// registers a {type(spec).__name__}, not an AdapterSpec.")
    return spec


def _loaded(point: EntryPoint) -> object:
    try:
        return point.load()
    except ConfigError:
        raise
    except Exception as error:  # whatever a package of somebody else's raises at its import
        missing = isinstance(error, ModuleNotFoundError) and error.name
        why = f"{missing!r} is not installed" if missing else type(error).__name__
        package = point.dist.name if point.dist is not None else point.module
        raise ConfigError(
            f"The adapter of {point.name}:// cannot be loaded from {point.value} of the package {package}: {why}. "
            "Mend or update that package, or uninstall it."
        ) from error


def _nearest(name: str, known: Iterable[str], form: str = "{}") -> str:
    close = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {form.format(close[0])!r}?" if close else "."


def resolve(
    url: str, keywords: Mapping[str, object], side: Side, *, environment: Mapping[str, str] | None = None
) -> tuple[AdapterSpec, Location, dict[str, object]]:
    """Check a URL with its options and find its adapter; connects to nothing.

    A keyword wins over the URL, the URL over a named connection, that over the environment. What a named connection
    brings is checked with the environment, so at open: the catalogue is not read at decoration.

    Args:
        url: The source or destination.
        keywords: The options given as keywords.
        side: Which end it is.
        environment: Where `EVENTFLOWS_<SCHEME>_<OPTION>` is looked up; None: not looked up, as at decoration.

    Raises:
        ConfigError: Something is wrong with the URL or an option; the text says what, and the nearest valid name.
    """
    location = parse(url)
    spec = adapter(location)
    named = location.query.get(CONNECTION)
    location = _unnamed(location)
    known = {option.name: option for option in (spec.source_options if side == "source" else spec.destination_options)}
    for name in location.query:  # before any value is read: errors about values show the URL
        _known(name, known, location, side)
    values: dict[str, object] = {}
    if environment is not None:
        for name, option in known.items():
            variable = f"EVENTFLOWS_{spec.scheme}_{name}".upper().replace("-", "_")
            if variable in environment and not option.url_only:
                values[name] = _value(option, environment[variable], f"the environment variable {variable}")
    if named is not None and environment is not None:
        location, given = _through(location, catalog_of(location.text).connection(named))
        for name, value in given.items():
            option = _known(name, known | {one.name: one for one in _options(spec)}, location, side)
            if name in known:  # one connection serves both ends, and some options are of one only
                values[name] = _value(option, value, f"{name} of connection {named!r}")
    for name, text in location.query.items():
        values[name] = _value(known[name], text, f"?{name}= in {location.text}")
    for keyword, value in keywords.items():
        name = keyword.removesuffix("_")
        name = name if name in known else name.replace("_", "-")
        option = _known(name, known, location, side, shown=keyword)
        if option.url_only:
            raise ConfigError(f"{keyword}= is not an option of {side}s; write it in the URL: {location.text}?{name}")
        values[name] = _value(option, value, f"{keyword}= of {location.text}")
    if named is None or environment is not None:
        spec.validate(location, values, side)
    return spec, location, values


def _options(spec: AdapterSpec) -> list[Option]:
    return [*spec.source_options, *spec.destination_options]


def _unnamed(location: Location) -> Location:
    """Take the name of a connection out of a URL's options.

    Raises:
        ConfigError: There is a place beside the name, or neither.
    """
    if CONNECTION not in location.query:
        return location
    scheme, name = location.scheme, location.query[CONNECTION]
    if not name:
        raise ConfigError(f"{location.text}: ?connection= needs the name of a connection of the catalogue.")
    if location.authority:
        raise ConfigError(
            f"{location.text}: a named connection says where the broker is, so nothing stands between '://' and the "
            f"next slash: {scheme}:///{location.path or location.authority}?connection={name}"
        )
    query = {key: value for key, value in location.query.items() if key != CONNECTION}
    return attrs.evolve(location, query=query)


def _through(location: Location, connection: catalog.Connection) -> tuple[Location, Mapping[str, object]]:
    """Put the place that a connection names into a URL."""
    if connection.kind != location.scheme:
        raise ConfigError(
            f"{location.text}: connection {connection.name!r} is of kind {connection.kind}, not {location.scheme}."
        )
    authority, _, path = f"{connection.place}/{location.path}".strip("/").partition("/")
    return attrs.evolve(location, authority=authority, path=path), connection.options


def catalog_of(url: str) -> catalog.Catalog:
    """Read the catalogue that a URL with `?connection=` needs.

    Raises:
        ConfigError: There is none, or it is broken.
    """
    found = catalog.load()
    if found is None:
        raise ConfigError(
            f"{url} names a connection, and there is no {catalog.FILE} here or in a folder above. "
            f"Make one with: eventflows connections add ... , or set {catalog.VARIABLE}."
        )
    return found


def place_of(url: str) -> tuple[str, bool]:
    """Give the topic or queue of a URL as grants name it, and whether a named connection leads there.

    Raises:
        ConfigError: It is not a URL.
    """
    location = parse(url)
    if (name := location.query.get(CONNECTION)) is not None:
        return f"{name}/{location.path}", True
    return url.partition("?")[0].rstrip("/"), False


def _known(
    name: str, known: Mapping[str, Option], location: Location, side: Side, *, shown: str | None = None
) -> Option:
    if name not in known:
        listed = f" It takes: {', '.join(sorted(known))}." if known else " It takes none."
        raise ConfigError(f"{location.scheme}:// has no {side} option {shown or name!r}{_nearest(name, known)}{listed}")
    return known[name]


def _value(option: Option, value: object, where: str) -> object:
    try:
        return option.parse(value)
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{where}: {error}. {option.name}: {option.about}") from None


def capabilities(url: str, keywords: Mapping[str, object], side: Side) -> Capabilities:
    """Say what the broker behind a URL can do, as far as it is known before connecting.

    Args:
        url: The source or destination.
        keywords: The options given as keywords.
        side: Which end it is.

    Raises:
        ConfigError: Something is wrong with the URL or an option; the text says what, and the nearest valid name.
    """
    spec, location, values = resolve(url, keywords, side)
    return spec.capabilities(location, values)


def open_subscriber(url: str, **options: Any) -> Subscriber:  # noqa: ANN401 - each adapter's own, checked by it
    """Make the adapter that reads from a URL. It validates only; `with`, `open()` or the first call connects.

    Args:
        url: The source.
        options: The adapter's own.

    Raises:
        ConfigError: Something is wrong with the URL or an option; the text names the nearest valid one.
        MissingExtraError: The client is not installed; install the extra that the text names.
    """
    spec, location, values = resolve(url, options, "source", environment=os.environ)
    return spec.subscriber(location, values)


def open_publisher(url: str, **options: Any) -> Publisher:  # noqa: ANN401 - each adapter's own, checked by it
    """Make the adapter that writes to a URL. It validates only; `with`, `open()` or the first call connects.

    Args:
        url: The destination.
        options: The adapter's own.

    Raises:
        ConfigError: Something is wrong with the URL or an option; the text names the nearest valid one.
        MissingExtraError: The client is not installed; install the extra that the text names.
    """
    spec, location, values = resolve(url, options, "destination", environment=os.environ)
    return spec.publisher(location, values)
