"""Retries and dead letters: a failure has a delay and a bound, and nothing is dropped silently."""

import eventflows
from eventflows import Delivery, Reject, Retry, RetryPolicy

tries: dict[int, int] = {}


@eventflows.subscriber(
    "local://parcels",
    retry=RetryPolicy(attempts=3, delay=0.02, jitter=0),
    dead_letter="local://lost-parcels",
)
def apply(parcel: dict[str, int], *, delivery: Delivery) -> None:
    """Fail in three ways."""
    number = parcel["number"]
    tries[number] = tries.get(number, 0) + 1
    if number == 1 and tries[number] == 1:
        raise Retry(delay=0.01)  # not now: it comes again
    if number == 2:
        raise Reject("nobody lives there")  # never again: dead letter at once
    if number == 3:
        raise ValueError("always fails")  # three attempts, then dead letter


eventflows.send("local://parcels", *({"number": number} for number in range(1, 5)))
result = apply.run(until_idle=0.2)
print(f"{result.acked} acked, {result.retried} retried, {result.dead_lettered} dead-lettered")
for letter in eventflows.open_subscriber("local://lost-parcels").peek(10, timeout=1):
    headers = letter.message.headers
    print(letter.message.body.decode(), "-", headers["ef-reason"], "- attempts:", headers["ef-attempts"])
