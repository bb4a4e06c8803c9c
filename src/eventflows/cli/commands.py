"""The commands, their words and their exit statuses."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from typing import BinaryIO, Final

import click

from eventflows.cli.find import find_flow
from eventflows.cli.progress import Counts, shown
from eventflows.errors import BrokerError, ConfigError, DrainTimeoutError, EventflowsError
from eventflows.flow import run_observed
from eventflows.locate import open_publisher, open_subscriber, parse
from eventflows.message import Delivery, Message
from eventflows.protocols import Browsable

HALTED: Final = 1
USAGE: Final = 2
DRAIN_TIMED_OUT: Final = 3
BATCH: Final = 500


def invoke(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status, having said on standard error what went wrong."""
    try:
        cli.main(args=list(arguments), prog_name="eventflows", standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "eventflows"
        click.echo(f"eventflows: {error.format_message()} See: {path} --help", err=True)
        return USAGE
    except click.Abort:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ConfigError as error:
        return _say(error, USAGE)
    except DrainTimeoutError as error:
        return _say(error, DRAIN_TIMED_OUT)
    except EventflowsError as error:
        return _say(error, HALTED)
    return 0


def _say(error: EventflowsError, status: int) -> int:
    name = f"{type(error).__name__}: " if isinstance(error, BrokerError) else ""
    click.echo(f"eventflows: {name}{error}", err=True)
    return status


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="eventflows", prog_name="eventflows")
def cli() -> None:
    """Run functions on messages, and look at what waits.

    \b
    A first try, in a folder with scorer.py, in which a flow is called apply:
      eventflows send 'local://images?file=flows.db' images.jsonl
      eventflows preview scorer:apply
      eventflows run scorer:apply
      eventflows tail 'local://scores?file=flows.db'

    \b
    Exit status: 0 drained; 1 halted, load() failed, or a broker refused;
    2 usage or configuration; 3 the drain timed out.
    """


@cli.command()
@click.argument("flows", nargs=-1, required=True, metavar="MODULE:FLOW...")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many inputs of each flow are settled for good.")
@click.option("--until-idle", type=click.FloatRange(0), metavar="SECONDS", help="Stop when nothing came for so long.")
def run(flows: tuple[str, ...], limit: int | None, until_idle: float | None) -> None:
    """Run one flow, or several together, until Ctrl-C or SIGTERM.

    A first signal drains: nothing more is taken, what runs is finished and settled, the rest is handed back.
    A second one does not wait.

    \b
    Examples:
      eventflows run scorer:apply
      eventflows run scorer.py:apply tally.py:count --until-idle 5
    """
    found = [find_flow(name) for name in flows]
    for flow in found:
        if flow.source is not None and _in_memory(flow.source):
            click.echo(
                f"eventflows: flow {flow.name} reads {flow.source}, which lives in the memory of this process alone: "
                "only what this process publishes arrives. Add ?file=flows.db to share it.",
                err=True,
            )
    counts = Counts()
    with shown(counts):
        results = run_observed(found, [counts], limit=limit, until_idle=until_idle)
    for flow, result in zip(found, results, strict=True):
        click.echo(f"{flow.name}: {result}")


def _in_memory(url: str) -> bool:
    location = parse(url)
    return location.scheme == "local" and "file" not in location.query


@cli.command()
@click.argument("flow", metavar="MODULE:FLOW")
@click.option("-n", "count", type=click.IntRange(1), default=5, show_default=True, help="Messages, at most.")
def preview(flow: str, count: int) -> None:
    """Show what a flow would do with messages that wait; nothing is taken, published or committed.

    \b
    Example:
      eventflows preview scorer:apply -n 3
    """
    found = find_flow(flow)
    _refuse_memory(found.source, "preview")
    click.echo(repr(found.preview(count)))


@cli.command()
@click.argument("flow", metavar="MODULE:FLOW")
def describe(flow: str) -> None:
    """Show what a flow is: its source, destination and settings.

    \b
    Example:
      eventflows describe scorer:apply
    """
    click.echo(str(find_flow(flow).describe()))


def _refuse_memory(url: str | None, command: str) -> None:
    if url is not None and _in_memory(url):
        raise ConfigError(
            f"{command}: {url} lives in the memory of one process, and this is a new one, so nothing is there. "
            f"Add ?file=flows.db to the URL to share it between processes."
        )


@cli.command()
@click.argument("url")
@click.argument("file", type=click.File("rb"), default="-")
@click.option("--whole", is_flag=True, help="Send all of FILE as one message, instead of one for each line.")
@click.option("--key", help="The key of every message.")
@click.option("--content-type", help="Said with every message, such as application/json.")
def send(url: str, file: BinaryIO, whole: bool, key: str | None, content_type: str | None) -> None:
    """Publish FILE to URL: one message for each line that is not empty, its bytes as they are.

    FILE is standard input when it is left out.

    \b
    Examples:
      eventflows send 'local://images?file=flows.db' images.jsonl
      echo '{"n": 1}' | eventflows send 'local://numbers?file=flows.db' --key one
    """
    publisher = open_publisher(url)
    _refuse_memory(url, "send")
    sent = 0
    with publisher:
        for numbers, bodies in _batches(file, whole):
            batch = [Message(body, key=key, content_type=content_type) for body in bodies]
            for number, answer in zip(numbers, publisher.publish(batch), strict=True):
                if answer.error is not None:
                    click.echo(f"eventflows: {sent:,} sent, then line {number} was refused.", err=True)
                    raise answer.error
                sent += 1
            if sys.stderr.isatty():
                click.echo(f"\r{sent:,} sent", nl=False, err=True)
    click.echo(f"\r{sent:,} sent to {url}" if sys.stderr.isatty() else f"{sent:,} sent to {url}", err=True)


def _batches(file: BinaryIO, whole: bool) -> Iterator[tuple[list[int], list[bytes]]]:
    if whole:
        yield [1], [file.read()]
        return
    numbers: list[int] = []
    bodies: list[bytes] = []
    for number, line in enumerate(file, 1):
        body = line.rstrip(b"\r\n")
        if body:
            numbers.append(number)
            bodies.append(body)
        if len(bodies) == BATCH:
            yield numbers, bodies
            numbers, bodies = [], []
    if bodies:
        yield numbers, bodies


@cli.command()
@click.argument("url")
@click.option("-n", "count", type=click.IntRange(1), default=10, show_default=True, help="Messages, at most.")
def tail(url: str, count: int) -> None:
    """Show messages that wait at URL, oldest first; nothing is taken.

    \b
    Examples:
      eventflows tail 'local://scores?file=flows.db' -n 3
      eventflows tail 'local://scores?file=flows.db&dead-letter'
    """
    subscriber = open_subscriber(url)
    _refuse_memory(url, "tail")
    if not isinstance(subscriber, Browsable):
        raise ConfigError(f"tail: {url} cannot be looked at without taking messages from it.")
    try:
        for delivery in subscriber.peek(count, timeout=10.0):
            click.echo(_line(delivery))
    finally:
        subscriber.close()


def _line(delivery: Delivery) -> str:
    message = delivery.message
    body = message.body or b""
    try:
        text = body.decode("utf-8")
        text = text if text.isprintable() else repr(text)[1:-1]
    except UnicodeDecodeError:
        text = repr(body)[2:-1]
    key = "" if message.key is None else f" key={message.key}"
    reason = message.headers.get("ef-reason")
    why = "" if reason is None else f" reason={reason!r}"
    return f"{delivery.position}{key}{why} {delivery.size} B  {text}"
