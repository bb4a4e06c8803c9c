"""`eventflows flows` and `eventflows forward`: flows that the catalogue names, and hosted algorithms anywhere."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, Final

import attrs
import click

from eventflows.binding import Destination, Source
from eventflows.catalog import Catalog, CatalogFlow
from eventflows.catalog_file import CatalogFile
from eventflows.cli.find import find_thing
from eventflows.cli.running import run_flows
from eventflows.cli.tables import show
from eventflows.decorators import publisher, subscriber
from eventflows.errors import ConfigError
from eventflows.flow import Flow
from eventflows.hosted import DEFAULT_TIMEOUT, hosted_algorithm, latest, split

API: Final = "ALGORITHMIA_API"
_HELP: Final = {"help_option_names": ["-h", "--help"]}
_LIMIT: Final = click.option("--limit", type=click.IntRange(1), help="Stop after so many inputs of each flow.")
_IDLE: Final = click.option(
    "--until-idle", type=click.FloatRange(0), metavar="SECONDS", help="Stop when nothing came for so long."
)


@click.group(short_help="Flows of the catalogue.", context_settings=_HELP)
def flows() -> None:
    """Flows of the catalogue, eventflows.toml here or in a folder above.

    \b
    Examples:
      eventflows flows edit scorer --algorithm scorer:apply --source 'kafka:///images?connection=prod&group=g'
      eventflows flows edit ocr --algorithm owner/ocr --version latest --source 'sqs:///scans?connection=queues'
      eventflows flows run
      eventflows flows disable ocr
    """


@flows.command("list", short_help="Show them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_flows(as_json: bool) -> None:
    """Show the flows of the catalogue."""
    file = CatalogFile()
    rows = [row_of(one) for one in file.read().flows.values()]
    columns = ("name", "enabled", "algorithm", "version", "source", "destination", "dead_letter")
    show(rows, columns, as_json=as_json, empty=f"{file.shown} has no flows")


def row_of(flow: CatalogFlow) -> dict[str, object]:
    """Give a flow of the catalogue as a row."""
    return attrs.asdict(flow)


@flows.command(short_help="Let one start.")
@click.argument("name")
def enable(name: str) -> None:
    """Let a flow start again."""
    _switch(name, True)


@flows.command(short_help="Keep one from starting.")
@click.argument("name")
def disable(name: str) -> None:
    """Keep a flow from starting; one that runs goes on until it is stopped."""
    _switch(name, False)


def _switch(name: str, enabled: bool) -> None:
    file = CatalogFile()
    file.put_flow(name, {"enabled": enabled}, new=False)
    click.echo(f"flow {name} is {'enabled' if enabled else 'disabled'} in {file.shown}", err=True)


@flows.command(short_help="Write one down, or change it.")
@click.argument("name")
@click.option("--algorithm", help="MODULE:FUNCTION or file.py:FUNCTION here, or OWNER/NAME hosted.")
@click.option("--version", help="Of a hosted one: latest, 1.2.0 or a build.")
@click.option("--source", metavar="URL", help="Where it reads from; none where the function is a flow and has its own.")
@click.option("--destination", metavar="URL", help="Where it publishes to.")
@click.option("--dead-letter", metavar="URL", help='A URL, "halt" or "drop".')
@click.option("--timeout", type=click.FloatRange(0, min_open=True), help="Seconds that one call may take.")
def edit(name: str, **given: Any) -> None:  # noqa: ANN401 - as click gives them
    """Write a flow down, or change what is given of it; an empty text takes a field out. A new one is enabled."""
    fields = {key.replace("_", "-"): value or None for key, value in given.items() if value is not None}
    if not fields:
        raise ConfigError("flows edit: nothing to change is given. See: eventflows flows edit --help")
    file = CatalogFile()
    file.put_flow(name, fields)
    click.echo(f"flow {name} is in {file.shown}; to run it: eventflows flows run {name}", err=True)


@flows.command(short_help="Run those that are enabled.")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@_LIMIT
@_IDLE
def run(names: tuple[str, ...], limit: int | None, until_idle: float | None) -> None:
    """Run every flow that is enabled, or those named, until Ctrl-C or SIGTERM; as `eventflows run` does.

    An algorithm that is OWNER/NAME runs on the platform, at ALGORITHMIA_API with ALGORITHMIA_API_KEY; `latest` is
    looked up once, at the start, and said.
    """
    file = CatalogFile()
    catalog = file.read()
    run_flows([made(one) for one in _chosen(catalog, names, file.shown)], limit, until_idle)


def _chosen(catalog: Catalog, names: tuple[str, ...], shown: str) -> list[CatalogFlow]:
    for name in names:
        if name not in catalog.flows:
            known = ", ".join(catalog.flows) or "none"
            raise ConfigError(f"{shown} has no flow {name!r}; it has: {known}.")
        if not catalog.flows[name].enabled:
            raise ConfigError(f"flow {name} is disabled. To enable it: eventflows flows enable {name}")
    found = [one for one in catalog.flows.values() if (one.name in names if names else one.enabled)]
    if not found:
        raise ConfigError(f"{shown} has no flow that is enabled. See: eventflows flows list")
    return found


def made(entry: CatalogFlow) -> Flow[..., Any]:
    """Make a flow of what the catalogue says.

    Raises:
        ConfigError: It has no source, or its algorithm cannot be found.
    """
    if ":" not in entry.algorithm:
        return _hosted(entry)
    thing, _ = find_thing(entry.algorithm)
    if not callable(thing):
        raise ConfigError(f"flow {entry.name}: {entry.algorithm} is a {type(thing).__name__}, not a function.")
    function = thing.__wrapped__ if isinstance(thing, Flow) else thing
    source = thing._source if isinstance(thing, Flow) else None
    destination = thing._destination if isinstance(thing, Flow) else None
    if source is None and entry.source is None:
        raise ConfigError(
            f"flow {entry.name} has no source. Give it one: eventflows flows edit {entry.name} --source URL"
        )
    return Flow(function, _source(entry, source, function), _destination(entry, destination))


def _source(entry: CatalogFlow, own: Source | None, function: Callable[..., Any]) -> Source:
    changed: dict[str, Any] = {"name": entry.name}
    if entry.source is not None and (own is None or own.url != entry.source):
        changed |= {"url": entry.source, "options": {}}
    if entry.dead_letter is not None:
        changed["dead_letter"] = entry.dead_letter
    if entry.timeout is not None:
        changed["timeout"] = entry.timeout
    if own is None or own.algorithm is None:
        changed |= {"algorithm": entry.algorithm, "version": entry.version}
    if own is None:
        url = changed.pop("url")
        del changed["options"]
        made = subscriber(url, **changed)(function)._source
        assert made is not None  # noqa: S101 - for the type checker: it has just been given
        return made
    return attrs.evolve(own, **changed)


def _destination(entry: CatalogFlow, own: Destination | None) -> Destination | None:
    if entry.destination is None:
        return own
    if own is not None:
        return own if own.url == entry.destination else attrs.evolve(own, url=entry.destination, options={})
    return Destination(
        url=entry.destination, options={}, key=None, headers=None, timeout=30.0, algorithm=None, version=None
    )


def _hosted(entry: CatalogFlow) -> Flow[..., Any]:
    if entry.source is None:
        raise ConfigError(
            f"flow {entry.name} has no source. Give it one: eventflows flows edit {entry.name} --source URL"
        )
    return forwarding(
        entry.source, f"{entry.algorithm}/{entry.version}", to=entry.destination, name=entry.name,
        dead_letter=entry.dead_letter, timeout=entry.timeout or DEFAULT_TIMEOUT, workers=1, api=None,
    )  # fmt: skip


def forwarding(
    source: str, algorithm: str, *, to: str | None, name: str | None, dead_letter: str | None, timeout: float,
    workers: int, api: str | None,
) -> Flow[..., Any]:  # fmt: skip
    """Make a flow that hands messages to a hosted algorithm; says which version `latest` is."""
    found = split(algorithm)
    base = api or os.environ.get(API)
    if not base:
        raise ConfigError(f"{algorithm} is hosted: set {API} to the address of the platform's API, or give --api.")
    short = f"{found['owner']}/{found['name']}"
    version = "" if found["version"] == "latest" else found["version"]
    if not version:
        version = latest(base, short) or ""
        click.echo(f"{short}: latest is {version or 'what the platform takes with each call'}", err=True)
    apply = hosted_algorithm(base, f"{short}/{version}".rstrip("/"), timeout=timeout)
    flow = subscriber(
        source, name=name or f"forward:{short}", workers=workers, dead_letter=dead_letter, algorithm=short,
        version=version or "latest",
    )(apply)  # fmt: skip
    return flow if to is None else publisher(to, algorithm=short, version=version or "latest")(flow)


@click.command(short_help="Hand messages to a hosted algorithm.")
@click.argument("source", metavar="SOURCE")
@click.argument("algorithm", metavar="OWNER/NAME/VERSION")
@click.option("--to", metavar="URL", help="Publish the results here.")
@click.option("--workers", type=click.IntRange(1), default=1, show_default=True, help="Calls in flight.")
@click.option("--timeout", type=click.FloatRange(0, 3000, min_open=True), default=DEFAULT_TIMEOUT, show_default=True,
              help="Seconds that a call may take.")  # fmt: skip
@click.option("--dead-letter", metavar="URL", help='Where a message goes that fails for good: a URL, "halt" or "drop".')
@click.option("--api", metavar="URL", help=f"Address of the platform's API.  [default: {API}]")
@_LIMIT
@_IDLE
def forward(source: str, algorithm: str, limit: int | None, until_idle: float | None, **given: Any) -> None:  # noqa: ANN401 - as click gives them
    """Hand each message at SOURCE to an algorithm that the platform hosts, until Ctrl-C or SIGTERM.

    Without a version the latest is looked up once and said. The key is ALGORITHMIA_API_KEY. When the platform is busy
    a message waits as long as it asks, else 300 seconds; a message is acknowledged after the algorithm returned, and
    with --to after the result is confirmed.

    \b
    Examples:
      eventflows forward 'sqs://eu-west-1/scans' owner/ocr/1.2.0 --workers 8
      eventflows forward 'kafka://broker1:9092/images?group=ocr' owner/ocr --to 'kafka://broker1:9092/texts'
    """
    run_flows([forwarding(source, algorithm, name=None, **given)], limit, until_idle)
