"""`eventflows connections` and `eventflows grants`: who may use which broker."""

from __future__ import annotations

import shlex
from typing import Any, Final

import click

from eventflows import catalog
from eventflows.catalog import KINDS, ROLES, Connection
from eventflows.catalog_file import CatalogFile
from eventflows.cli.check import report
from eventflows.cli.tables import show
from eventflows.errors import ConfigError
from eventflows.locate import open_subscriber
from eventflows.protocols import Listable, Subscriber

_PROBE: Final = {"kafka": "eventflows", "eventhubs": "$Default"}
"""The group of a look; it is not joined."""


@click.group(short_help="Named connections to brokers.", context_settings={"help_option_names": ["-h", "--help"]})
def connections() -> None:
    """Named connections of the catalogue, eventflows.toml here or in a folder above.

    A URL with an empty place and ?connection=NAME takes the rest from here: kafka:///images?connection=prod&group=g

    \b
    Examples:
      eventflows connections add prod kafka broker1:9092,broker2:9092 -o username=flows --env password=KAFKA_PASSWORD
      eventflows connections test prod
      eventflows connections topics prod
      eventflows grants add owner/scorer subscriber prod/images
    """


@connections.command("list", short_help="Show them, without secrets.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_connections(as_json: bool) -> None:
    """Show the connections; of a secret, only where it is read from."""
    file = CatalogFile()
    rows = [_row(one) for one in file.read().connections.values()]
    show(rows, ("name", "kind", "place", "options"), as_json=as_json, empty=f"{file.shown} has no connections")


def _row(one: Connection) -> dict[str, object]:
    options = ", ".join(f"{name}={value}" for name, value in one.options.items())
    return {"name": one.name, "kind": one.kind, "place": one.place, "options": options}


@connections.command(short_help="Write one down.")
@click.argument("name")
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("place", default="")
@click.option("-o", "--option", multiple=True, metavar="NAME=VALUE", help="An option of the adapter; no secret.")
@click.option("--env", multiple=True, metavar="NAME=VARIABLE", help="A secret, read from an environment variable.")
@click.option("--file", multiple=True, metavar="NAME=PATH", help="A secret, read from a file.")
@click.option("--command", multiple=True, metavar="NAME=WORDS", help="A secret, as a program prints it.")
@click.option("--replace", is_flag=True, help="Change the one of this name.")
def add(
    name: str, kind: str, place: str, option: tuple[str, ...], env: tuple[str, ...], file: tuple[str, ...],
    command: tuple[str, ...], replace: bool,
) -> None:  # fmt: skip
    """Write a connection down; connects to nothing.

    PLACE is what stands between :// and the topic or queue: hosts of Kafka, region (and account) of SQS, a namespace;
    nothing for "local". Secrets are never written down: say where they are read from.

    \b
    Examples:
      eventflows connections add prod kafka broker1:9092 -o username=flows --env password=KAFKA_PASSWORD
      eventflows connections add queues sqs eu-west-1/123456789012 -o role-arn=arn:aws:iam::123456789012:role/reader
      eventflows connections add bus servicebus shop --command 'connection_string=pass show bus'
      eventflows connections add dev local -o file=flows.db
    """
    fields: dict[str, Any] = {"kind": kind} | ({"place": place} if place else {})
    fields |= dict(_pair(text, "--option") for text in option)
    for kind_of, texts in (("env", env), ("file", file)):
        fields |= {key: {kind_of: value} for key, value in (_pair(text, f"--{kind_of}") for text in texts)}
    fields |= {key: {"command": shlex.split(words)} for key, words in (_pair(text, "--command") for text in command)}
    catalog_file = CatalogFile()
    catalog_file.put_connection(name, fields, replace=replace)
    click.echo(f"connection {name} is in {catalog_file.shown}; to try it: eventflows connections test {name}", err=True)


def _pair(text: str, where: str) -> tuple[str, str]:
    name, mark, value = text.partition("=")
    if not mark or not name or not value:
        raise ConfigError(f"{where}: expected NAME=VALUE.")
    return name, value


@connections.command(short_help="Take one out.")
@click.argument("name")
def remove(name: str) -> None:
    """Take a connection out of the catalogue; refused while a grant or a flow uses it."""
    file = CatalogFile()
    file.remove_connection(name)
    click.echo(f"connection {name} is no longer in {file.shown}", err=True)


@connections.command(short_help="Connect, and say what is wrong.")
@click.argument("name")
@click.argument("topic", required=False)
def test(name: str, topic: str | None) -> None:
    """Connect through a connection, and say what is well or wrong. Takes and changes nothing.

    With TOPIC, that topic or queue is looked at, too. Exit status 1 when something is wrong.
    """
    one = _connection(name)
    if topic is not None or one.kind == "local":
        report(lambda: open_subscriber(_url(one, topic or "eventflows")), _url(one, topic or "eventflows"))
        return
    subscriber = _subscriber(one)
    if isinstance(subscriber, Listable):
        found = len(subscriber.entities())
        click.echo(f"ok       connection {name} answers, and shows {found} topics or queues")
    else:
        raise ConfigError(f"{one.kind} is tried with a topic or queue: eventflows connections test {name} TOPIC")


@connections.command(short_help="List what a broker has.")
@click.argument("name")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def topics(name: str, as_json: bool) -> None:
    """List the topics or queues that a connection shows, one for each line."""
    one = _connection(name)
    subscriber = _subscriber(one)
    if not isinstance(subscriber, Listable):
        raise ConfigError(f"{one.kind} cannot list what it has with these clients; look in its own console.")
    rows = [{"name": entity} for entity in subscriber.entities()]
    show(rows, ("name",), as_json=as_json, empty=f"connection {name} shows no topics or queues")


def _connection(name: str) -> Connection:
    found = catalog.load()
    if found is None:
        raise ConfigError(
            f"there is no {catalog.FILE} here or in a folder above. See: eventflows connections add --help"
        )
    return found.connection(name)


def _url(one: Connection, topic: str) -> str:
    group = f"&group={_PROBE[one.kind]}" if one.kind in _PROBE else ""
    return f"{one.kind}:///{topic}?connection={one.name}{group}"


def _subscriber(one: Connection) -> Subscriber:
    return open_subscriber(_url(one, "eventflows"))


@click.group(
    short_help="Which algorithm may use which topic.", context_settings={"help_option_names": ["-h", "--help"]}
)
def grants() -> None:
    """Grants of the catalogue: which algorithm may read, or write, which topic or queue.

    A flow that uses a named connection does not start without its grant; with `require-grants = true` in
    eventflows.toml no flow does. They guard against mistakes: whoever can change the file can grant.

    \b
    Examples:
      eventflows grants add owner/scorer subscriber prod/images
      eventflows grants add owner/scorer publisher sqs://eu-west-1/scores
      eventflows grants list
    """


@grants.command("list", short_help="Show them.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_grants(as_json: bool) -> None:
    """Show the grants."""
    file = CatalogFile()
    rows = [{"algorithm": one.algorithm, "role": one.role, "place": one.place} for one in file.read().grants]
    show(rows, ("algorithm", "role", "place"), as_json=as_json, empty=f"{file.shown} has no grants")


@grants.command("add", short_help="Write one down.")
@click.argument("algorithm")
@click.argument("role", type=click.Choice(ROLES))
@click.argument("place")
def add_grant(algorithm: str, role: str, place: str) -> None:
    """Let ALGORITHM be a subscriber or publisher of PLACE.

    ALGORITHM is owner/name, every version of it, unpublished builds included. PLACE is CONNECTION/TOPIC, or the URL
    of a topic or queue without its options.
    """
    file = CatalogFile()
    new = file.add_grant(catalog.grant(algorithm, role, place, "grants add"))
    click.echo(f"{algorithm} {'is now' if new else 'was already'} a {role} of {place} in {file.shown}", err=True)


@grants.command("remove", short_help="Take one out.")
@click.argument("algorithm")
@click.argument("role", type=click.Choice(ROLES))
@click.argument("place")
def remove_grant(algorithm: str, role: str, place: str) -> None:
    """Take a grant back: the next start of such a flow is refused; one that runs goes on."""
    file = CatalogFile()
    file.remove_grant(catalog.grant(algorithm, role, place, "grants remove"))
    click.echo(f"{algorithm} is no longer a {role} of {place} in {file.shown}", err=True)
