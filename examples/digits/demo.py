"""Handwritten digits from publish to tally, through an embedded broker in a file.

Half of scikit-learn's 1,797 images train a small model; the other half are published as JSON, with some broken
bodies and some images that the model must refuse among them. One flow classifies, a second tallies.
"""

from __future__ import annotations

import collections
import functools
import logging
import os
import sys
import tempfile

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

FOLDER = tempfile.TemporaryDirectory(prefix="eventflows-digits-")
os.environ["EVENTFLOWS_DIGITS"] = os.path.join(FOLDER.name, "digits.db")

import flows  # noqa: E402 - it reads the variable
from images import messages  # noqa: E402

import eventflows  # noqa: E402


def main() -> int:
    """Run the demo; 0 when every message is accounted for."""
    logging.getLogger("eventflows").setLevel(logging.ERROR)  # dead letters are shown at the end
    console = Console()
    batch = list(messages())
    unfit = collections.Counter(reason for _, reason in batch if reason is not None)
    eventflows.send(flows.IMAGES, *(message for message, _ in batch))
    place = flows.IMAGES.partition("?")[0]
    console.print(f"published {len(batch)} messages to {place}, {unfit.total()} of them not fit to be classified")
    result = classify_and_tally(console, len(batch), len(batch) - unfit.total())
    return report(console, result, sent=len(batch), unfit=unfit)


def classify_and_tally(console: Console, sent: int, fit: int) -> eventflows.RunResult:
    """Run both flows until every message is through, with a progress bar for each on a terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for what, total, flow in (("classify", sent, flows.CLASSIFIED), ("tally", fit, flows.TALLIED)):
            flow.advance = functools.partial(progress.advance, progress.add_task(what, total=total))
        with flows.classify.running(limit=sent):
            return flows.tally.run(limit=fit)


def report(console: Console, tallied: eventflows.RunResult, *, sent: int, unfit: collections.Counter[str]) -> int:
    """Print what happened; 0 when it adds up."""
    right, total = flows.RIGHT.total(), flows.TALLY.total()
    left = eventflows.open_subscriber(flows.IMAGES + flows.READING).backlog().waiting  # type: ignore[union-attr]
    table = Table(title="handwritten digits", show_header=False)
    table.add_row("processed", f"{sent - (left or 0)} of {sent}")
    table.add_row("scores tallied", f"{tallied.acked}")
    table.add_row("accuracy on held-out images", f"{right / max(total, 1):.1%} ({right} of {total})")
    table.add_row("throughput", f"{sent / tallied.seconds:,.0f} messages/s, training included")
    letters = dead_letters()
    table.add_row("dead letters", f"{len(letters)}")
    console.print(table)
    classes = Table("class", *(str(digit) for digit in sorted(flows.TALLY)), title="scores of each class")
    classes.add_row("tallied", *(str(flows.TALLY[digit]) for digit in sorted(flows.TALLY)))
    classes.add_row("right", *(str(flows.RIGHT[digit]) for digit in sorted(flows.TALLY)))
    console.print(classes)
    for position, reason, error in letters:
        why = reason if error in ("", reason) else f"{reason}: {error}"
        console.print(f"  dead letter at {position}: {why}", markup=False, highlight=False, soft_wrap=True)
    found = collections.Counter(reason for _, reason, _ in letters)
    if left or found != unfit or not tallied.acked == total == sent - unfit.total():
        console.print("these counts do not add up", style="red")
        return 1
    return 0


def dead_letters() -> list[tuple[str, str, str]]:
    """Look at the dead letters, taking none: position, reason and error."""
    mark = "&" if "?" in flows.IMAGES else "?"
    place = flows.DEAD + flows.READING if flows.DEAD else f"{flows.IMAGES}{mark}dead-letter"
    source = eventflows.open_subscriber(place)
    letters = source.peek(1000, timeout=10)  # type: ignore[attr-defined]
    said = [(letter.position, letter.message.headers) for letter in letters]
    return [(position, headers["ef-reason"], headers.get("ef-error", "")) for position, headers in said]


if __name__ == "__main__":
    sys.exit(main())
