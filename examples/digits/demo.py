"""Handwritten digits from publish to tally, through an embedded broker in a file.

Half of scikit-learn's 1,797 images train a small model; the other half are published as JSON, with some broken
bodies and some images that the model must refuse among them. One flow classifies, a second tallies.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import tempfile
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

FOLDER = tempfile.TemporaryDirectory(prefix="eventflows-digits-")
os.environ["EVENTFLOWS_DIGITS"] = os.path.join(FOLDER.name, "digits.db")

import flows  # noqa: E402 - it reads the variable
from sklearn.datasets import load_digits  # noqa: E402

import eventflows  # noqa: E402

BROKEN = [b'{"number": 1, "pixels": [0.0, ', b"\xff\xfenot text", b'{"number": "one", "pixels": []}', b""]


def messages() -> Iterator[object]:
    """Give the held-out images, and what must be refused in their midst."""
    digits = load_digits()
    _, held_out = flows.split()
    for place, number in enumerate(held_out):
        if place % 200 == 100:
            yield BROKEN[place // 200 % len(BROKEN)]
        if place % 300 == 150:
            yield flows.Image(int(number), [0.0] * 64)
        if place % 400 == 200:
            yield flows.Image(int(number), digits.data[number][:10].tolist())
        yield flows.Image(int(number), digits.data[number].tolist())


def dead_letters() -> list[tuple[str, str]]:
    """Look at the dead letters: position and reason."""
    source = eventflows.open_subscriber(f"{flows.IMAGES}&dead-letter")
    letters = source.peek(1000, timeout=10)  # type: ignore[attr-defined]
    reasons = [(letter.position, letter.message.headers) for letter in letters]
    return [(at, ": ".join(dict.fromkeys((said["ef-reason"], said.get("ef-error", ""))))) for at, said in reasons]


def main() -> int:
    """Run the demo; 0 when every message is accounted for."""
    logging.getLogger("eventflows").setLevel(logging.ERROR)  # dead letters are shown at the end
    console = Console()
    batch = list(messages())
    refused = len(batch) - len(flows.split()[1])
    eventflows.send(flows.IMAGES, *batch)
    console.print(f"published {len(batch)} messages to local://images, {refused} of them not fit to be classified")
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:
        for what, total, flow in (
            ("classify", len(batch), flows.CLASSIFIED),
            ("tally", len(batch) - refused, flows.TALLIED),
        ):
            flow.advance = functools.partial(progress.advance, progress.add_task(what, total=total))
        with flows.classify.running(limit=len(batch)):
            tallied = flows.tally.run(limit=len(batch) - refused)
    return report(console, tallied, sent=len(batch), refused=refused)


def report(console: Console, tallied: eventflows.RunResult, *, sent: int, refused: int) -> int:
    """Print what happened; 0 when it adds up."""
    letters = dead_letters()
    right, total = flows.RIGHT[True], flows.RIGHT.total()
    table = Table(title="handwritten digits", show_header=False)
    left = eventflows.open_subscriber(flows.IMAGES).backlog().waiting  # type: ignore[union-attr]
    table.add_row("processed", f"{sent - (left or 0)} of {sent}")
    table.add_row("scores tallied", f"{tallied.acked}")
    table.add_row("accuracy on held-out images", f"{right / max(total, 1):.1%} ({right} of {total})")
    table.add_row("throughput", f"{sent / tallied.seconds:,.0f} messages/s, training included")
    table.add_row("per class", "  ".join(f"{digit}: {flows.TALLY[digit]}" for digit in sorted(flows.TALLY)))
    table.add_row("dead letters", f"{len(letters)}")
    console.print(table)
    for position, reason in letters:
        console.print(f"  dead letter at {position}: {reason}", markup=False, highlight=False)
    if left or len(letters) != refused or not tallied.acked == total == sent - refused:
        console.print("these counts do not add up", style="red")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
