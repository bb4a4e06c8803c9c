"""`eventflows check`: what is wrong before anything runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

import click

from eventflows.cli.find import find_flow
from eventflows.errors import BrokerError, ConfigError
from eventflows.locate import open_publisher, open_subscriber
from eventflows.protocols import Checkable, Finding, Publisher, Subscriber
from eventflows.runner.plan import Plan

WRONG: Final = 1
"""Exit status when a finding is an error."""
_COLOURS: Final = {"ok": "green", "warning": "yellow", "error": "red"}


@click.command(short_help="Say what is wrong before anything runs.")
@click.argument("things", nargs=-1, required=True, metavar="MODULE:FLOW|URL...")
def check(things: tuple[str, ...]) -> None:
    """Look at all that a flow needs of its brokers, and say in one line each what is well, doubtful or wrong.

    Of a flow, its source, destination and dead-letter place are looked at; of a URL, whether it can be read from.
    Nothing is taken, published or changed. A line that is not "ok" has its next step below it.

    \b
    Examples:
      eventflows check scorer:apply
      eventflows check 'sqs://eu-west-1/images'

    Exit status: 0 when nothing is wrong, warnings included; 1 when something is.
    """
    say([finding for thing in things for finding in _findings(thing)])


def report(make: Callable[[], Subscriber | Publisher], url: str) -> None:
    """Look at one end and say what was found; exits with 1 when something is wrong."""
    say(list(_of(make, url)))


def say(findings: Sequence[Finding]) -> None:
    """Print findings, a line each, and what to do below those that are not "ok"."""
    for finding in findings:
        click.echo(f"{click.style(f'{finding.level:<7}', fg=_COLOURS[finding.level])}  {finding.text}")
        if finding.fix and finding.level != "ok":
            click.echo(f"         {finding.fix}")
    if any(finding.level == "error" for finding in findings):
        raise click.exceptions.Exit(WRONG)


def _findings(thing: str) -> Iterator[Finding]:
    if "://" in thing:
        yield from _of(lambda: open_subscriber(thing), thing)
        return
    flow = find_flow(thing)
    if flow.source is not None:
        plan = flow.plan()
        found = list(_of(plan.subscriber, flow.source))
        yield from found
        yield from _workers(plan, [one.lanes for one in found if one.lanes])
        yield from attempts_of(plan, [one.deliveries for one in found if one.deliveries])
        if plan.dead_letter_publisher is not None and plan.dead_letter is not None:
            yield from _of(plan.dead_letter_publisher, plan.dead_letter)
    destination = flow._destination
    if destination is not None:
        yield from _of(lambda: open_publisher(destination.url, **destination.options), destination.url)


def _workers(plan: Plan, lanes: Sequence[int]) -> Iterator[Finding]:
    """Compare workers with lanes, where the source has any: in order by lane, only one works on each."""
    if not lanes:
        return
    shared = f"{plan.workers} worker{'s' * (plan.workers > 1)} for {sum(lanes)} partition{'s' * (sum(lanes) > 1)}"
    if plan.order == "lane" and plan.workers > sum(lanes):
        fix = 'Lower workers=, give the topic more partitions, or leave order="lane" out.'
        yield Finding("warning", f"{shared}, one message of each at a time: {plan.workers - sum(lanes)} idle", fix)
    else:
        yield Finding("ok", shared)


def attempts_of(plan: Plan, deliveries: Sequence[int]) -> Iterator[Finding]:
    """Compare attempts with deliveries, where the broker counts them: it would end a message that has attempts left."""
    if not deliveries:
        return
    attempts, most = plan.retry.attempts, min(deliveries)
    shared = f"{attempts} attempt{'s' * (attempts > 1)}, and {most} deliveries"
    if attempts > most:
        fix = (
            "Let the broker deliver more often: each stop, crash and lost lease is a delivery, too. Or lower attempts=."
        )
        yield Finding(
            "warning", f"{shared}: the broker moves a message to its dead letters before its last attempt", fix
        )
    else:
        yield Finding("ok", shared)


def _of(make: Callable[[], Subscriber | Publisher], url: str) -> Iterator[Finding]:
    """Look at one end; where its adapter has no look of its own, opening it says whether it is there."""
    adapter = make()
    try:
        if isinstance(adapter, Checkable):
            yield from adapter.check()
            return
        adapter.open(timeout=10.0)
        yield Finding("ok", f"{url} can be opened")
    except (BrokerError, ConfigError) as error:
        yield Finding("error", str(error), "Mend what it says, and check again.")
    finally:
        adapter.close()
