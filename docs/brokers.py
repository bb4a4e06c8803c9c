"""Write the README's table of brokers from what the adapters say of themselves: `python docs/brokers.py`."""

from __future__ import annotations

import pathlib
import re

from eventflows.locate import capabilities
from eventflows.protocols import Capabilities

README = pathlib.Path(__file__).resolve().parent.parent / "README.md"
MARKS = ("<!-- brokers: python docs/brokers.py -->\n", "<!-- /brokers -->\n")
REDRIVE = "the redrive policy's queue"
HEAD = ("broker", "delivery", "order", "delayed retry", "dead letters", "new group begins", "tested on")
# What a name stands for, the URL that is asked, its lanes' name, where dead letters go that the broker is not asked to
# keep, what tests use.
ROWS = (
    ("embedded (`local://`)", "local://orders", "", "", "itself"),
    ("Apache Kafka (`kafka://`)", "kafka://broker:9092/orders?group=scorer", "partition", "", "Kafka 4"),
    ("Amazon SQS (`sqs://`)", "sqs://eu-west-1/orders", "", REDRIVE, "ElasticMQ, moto"),
    ("Amazon SQS FIFO", "sqs://eu-west-1/orders.fifo", "message group", REDRIVE, "ElasticMQ"),
    ("Azure Service Bus (`servicebus://`)", "servicebus://shop/orders", "session", "", "a stand-in"),
    (
        "Azure Event Hubs (`eventhubs://`)",
        "eventhubs://shop/orders?group=scorer&checkpoints=flows.db",
        "partition",
        "",
        "a stand-in",
    ),
)


def span(seconds: float) -> str:
    """Say a time in its largest unit."""
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def order(able: Capabilities, lane: str) -> str:
    """Say what keeps its order."""
    return {"none": "none", "key": "by key", "lane": f"by {lane} and key"}[able.ordering]


def retry(able: Capabilities) -> str:
    """Say who waits before another attempt."""
    if able.redeliver and able.redeliver_delay:
        return f"by the broker, up to {span(able.redeliver_delay)}"
    return "by the library, in the process"


def dead_letters(able: Capabilities, elsewhere: str) -> str:
    """Say where a message goes whose attempts are used up."""
    return "its own" if able.dead_letter else elsewhere or "`dead_letter=`"


def row(name: str, url: str, lane: str, elsewhere: str, tested: str) -> tuple[str, ...]:
    """Give the cells of one broker."""
    able = capabilities(url, {}, "source")
    return (
        name,
        "at least once; exactly once to itself" if able.transactions else "at least once",
        order(able, lane),
        retry(able),
        dead_letters(able, elsewhere),
        ("at the oldest message" if able.replay else "now") if able.groups else "no groups",
        tested,
    )


def table() -> str:
    """Give the table as Markdown."""
    lines = [HEAD, tuple("---" for _ in HEAD), *(row(*one) for one in ROWS)]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def written() -> str:
    """Give the README with the table in its place."""
    text = README.read_text(encoding="utf-8")
    begin, end = map(re.escape, MARKS)
    return re.sub(f"({begin}).*?({end})", lambda found: found[1] + table() + found[2], text, flags=re.DOTALL)


if __name__ == "__main__":
    README.write_text(written(), encoding="utf-8")
