"""The commands, their words and their exit statuses."""

from __future__ import annotations

import contextlib
import os
import pathlib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, BinaryIO, Final

import click

from eventflows.cli.check import check
from eventflows.cli.connections import connections, grants
from eventflows.cli.find import find_flow
from eventflows.cli.flows import flows, forward
from eventflows.cli.lines import Line, batches, columns
from eventflows.cli.listing import list_all
from eventflows.cli.memory import file_of, memory_of
from eventflows.cli.progress import Rate, shown
from eventflows.cli.running import run_flows
from eventflows.errors import BrokerError, ConfigError, DrainTimeoutError, EventflowsError
from eventflows.flow import Flow
from eventflows.locate import Side, open_publisher, open_subscriber
from eventflows.message import Message
from eventflows.protocols import Browsable, Publisher

HALTED: Final = 1
USAGE: Final = 2
DRAIN_TIMED_OUT: Final = 3
INTERRUPTED: Final = 130
PEEK_TIMEOUT: Final = 10.0


def invoke(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status, having said on standard error what went wrong."""
    try:
        with cli.make_context("eventflows", list(arguments)) as made:
            cli.invoke(made)
        sys.stdout.flush()
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else _command_in(arguments)
        text = error.format_message()
        return _say(f"{text}{'' if text.endswith(('.', '?')) else '.'} See: {path} --help", USAGE)
    except KeyboardInterrupt:
        return INTERRUPTED
    except ConfigError as error:
        return _say(error, USAGE)
    except DrainTimeoutError as error:
        return _say(error, DRAIN_TIMED_OUT)
    except EventflowsError as error:
        return _say(_named(error), HALTED)
    except OSError as error:
        with contextlib.suppress(OSError, ValueError):  # nobody reads what is still to be written
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 0
        return _say(f"{error.strerror or type(error).__name__}: {error.filename or 'standard output'}", HALTED)
    return 0


def _command_in(arguments: Sequence[str]) -> str:
    """Name the command that was meant: click does not, where an option has no value."""
    return f"eventflows {arguments[0]}" if arguments and arguments[0] in cli.commands else "eventflows"


def _say(what: object, status: int) -> int:
    click.echo(f"eventflows: {what}", err=True)
    return status


def _named(error: EventflowsError) -> str:
    return f"{type(error).__name__}: {error}" if isinstance(error, BrokerError) else str(error)


@click.group(context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True)
@click.version_option(package_name="eventflows", prog_name="eventflows")
@click.pass_context
def cli(context: click.Context) -> None:
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
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(USAGE)


for made in (check, connections, grants, flows, list_all, forward):
    cli.add_command(made)


@cli.command(short_help="Run flows until Ctrl-C.")
@click.argument("flows", nargs=-1, required=True, metavar="MODULE:FLOW...")
@click.option("--limit", type=click.IntRange(1), help="Stop after so many inputs of each flow are settled for good.")
@click.option("--until-idle", type=click.FloatRange(0), metavar="SECONDS", help="Stop when nothing came for so long.")
def run(flows: tuple[str, ...], limit: int | None, until_idle: float | None) -> None:
    """Run one flow, or several together, until Ctrl-C or SIGTERM.

    MODULE is a module that can be imported from here, or a file that ends in .py. A first signal drains: nothing
    more is taken, what runs is finished and settled, the rest is handed back. A second one does not wait.

    \b
    Examples:
      eventflows run scorer:apply
      eventflows run scorer.py:apply tally.py:count --until-idle 5
    """
    found = [find_flow(name) for name in flows]
    for name, flow in zip(flows, found, strict=True):
        if sum(other is flow for other in found) > 1:
            raise ConfigError(f"{name} is given twice; workers= of @subscriber makes it work on several at once.")
    _warn_of_memory(found)
    run_flows(found, limit, until_idle)


def _warn_of_memory(flows: Sequence[Flow[..., Any]]) -> None:
    read = {memory_of(flow, "source") for flow in flows}
    written = {memory_of(flow, "destination") for flow in flows}
    for flow in flows:
        source, destination, where = memory_of(flow, "source"), memory_of(flow, "destination"), None
        if source is not None and source not in written:
            where = f"reads {flow.source}: only what this process publishes arrives there"
        elif destination is not None and destination not in read:
            where = f"publishes to {flow.destination}: no other process sees that, and it ends with this one"
        if where is not None:
            click.echo(
                f"eventflows: {flow.name} {where}. Memory lives in one process; add ?file=flows.db to share it.",
                err=True,
            )


@cli.command(short_help="Show what a flow would do; takes nothing.")
@click.argument("flow", metavar="MODULE:FLOW")
@click.option("-n", "count", type=click.IntRange(1), default=5, show_default=True, help="Messages, at most.")
def preview(flow: str, count: int) -> None:
    """Show what a flow would do with messages that wait; nothing is taken, published or committed.

    Each line is an input, what apply made of it, and how long that took.

    \b
    Example:
      eventflows preview scorer:apply -n 3
    """
    found = find_flow(flow)
    if found._source is not None:
        _refuse_lost(found._source.url, "preview", "source", found._source.options)
    click.echo(repr(found.preview(count)))


@cli.command(short_help="Show what a flow is.")
@click.argument("flow", metavar="MODULE:FLOW")
def describe(flow: str) -> None:
    """Show what a flow is: its source, destination and settings. Connects to nothing.

    \b
    Example:
      eventflows describe scorer:apply
    """
    click.echo(str(find_flow(flow).describe()))


def _refuse_lost(url: str, command: str, side: Side, options: Mapping[str, object]) -> None:
    """Refuse a place where nothing can be: the memory of this new process, or a file that is not there."""
    file = file_of(url, options, side)
    if file is None:
        return
    if not file:
        raise ConfigError(
            f"{command}: {url} lives in the memory of one process, and this is a new one. "
            "Add ?file=flows.db to the URL to share it between processes."
        )
    if side == "source" and not pathlib.Path(file).exists():
        raise ConfigError(f"{command}: {url}: there is no file {file}. Correct its name, or send something first.")


class Input(click.File):
    """A file to read bytes from, or standard input."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:  # noqa: ANN401 - as click has it
        """Open it."""
        if value == "-" and sys.stdin is None:
            self.fail("standard input is closed; give a file.", param, ctx)
        return super().convert(value, param, ctx)


@cli.command(short_help="Publish the lines of a file.")
@click.argument("url")
@click.argument("file", type=Input("rb"), default="-")
@click.option("--whole", is_flag=True, help="Send all of FILE as one message, instead of one for each line.")
@click.option("--key", help="The key of every message; those of one key keep their order.")
@click.option("--content-type", help="Said with every message, such as application/json.")
def send(url: str, file: BinaryIO, whole: bool, key: str | None, content_type: str | None) -> None:
    """Publish FILE to URL: one message for each line that is not empty, its bytes as they are.

    FILE is standard input when it is left out, or "-". What a pipe brings is sent as it comes.

    \b
    Examples:
      eventflows send 'local://images?file=flows.db' images.jsonl
      echo '{"n": 1}' | eventflows send 'local://numbers?file=flows.db' --key one
      eventflows send 'local://scans?file=flows.db' scan.png --whole
    """
    publisher = open_publisher(url)
    _refuse_lost(url, "send", "destination", {})
    if file.isatty() and not whole:
        click.echo("Reading one message for each line; Ctrl-D ends it.", err=True)
    lines = iter([[Line(1, file.read())]]) if whole else batches(file)
    sent = Sent(url)
    try:
        with publisher, contextlib.nullcontext() if file.isatty() else shown(sent.line, lambda: sent.count):
            for batch in lines:
                bodies = [Message(line.body, key=key, content_type=content_type) for line in batch]
                sent.publish(publisher, bodies, batch)
    except BrokerError as error:
        before = f"{sent.count:,} sent to {url}, then{sent.refused} " if sent.count or sent.refused else ""
        _say(f"{before}{_named(error)}", HALTED)
        raise click.exceptions.Exit(HALTED) from error
    except KeyboardInterrupt:
        click.echo(f"{sent.count:,} sent to {url}", err=True)
        raise
    click.echo(f"{sent.count:,} sent to {url}", err=True)


class Sent:
    """How much was sent.

    Args:
        url: Where.
    """

    def __init__(self, url: str) -> None:
        self.count = 0
        self.refused = ""
        self._url = url
        self._rate = Rate()

    def publish(self, publisher: Publisher, bodies: Sequence[Message], lines: Sequence[Line]) -> None:
        """Publish and count; raises the first refusal, after counting what was not refused."""
        answers = publisher.publish(bodies)
        self.count += sum(answer.error is None for answer in answers)
        for line, answer in zip(lines, answers, strict=True):
            if answer.error is not None:
                self.refused = f" line {line.number}:"
                raise answer.error

    def line(self) -> str:
        """Give the count and the rate."""
        return f"{self.count:,} sent to {self._url}, {self._rate.of(self.count):,.0f} messages/s"


@cli.command(short_help="Show messages that wait; takes nothing.")
@click.argument("url")
@click.option("-n", "count", type=click.IntRange(1), default=10, show_default=True, help="Messages, at most.")
def tail(url: str, count: int) -> None:
    """Show messages that wait at URL, oldest first; nothing is taken.

    A message is one line: position, key, bytes and body, with tabs between them in a pipe. A dead letter has its
    reason after that.

    \b
    Examples:
      eventflows tail 'local://scores?file=flows.db' -n 3
      eventflows tail 'local://scores?file=flows.db&dead-letter' | cut -f 4
    """
    subscriber = open_subscriber(url)
    _refuse_lost(url, "tail", "source", {})
    if not isinstance(subscriber, Browsable):
        raise ConfigError(f"tail: {url} cannot be looked at without taking messages from it.")
    try:
        rows = [columns(delivery) for delivery in subscriber.peek(count, timeout=PEEK_TIMEOUT)]
    finally:
        subscriber.close()
    if not rows:
        click.echo(f"nothing waits at {url}", err=True)
    elif sys.stdout.isatty():
        _table(rows)
    else:
        for row in rows:
            click.echo("\t".join(row))


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False)
    for name in ("position", "key", "bytes", "body", "reason")[: max(map(len, rows))]:
        table.add_column(name, justify="right" if name == "bytes" else "left", no_wrap=True, overflow="ellipsis")
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
