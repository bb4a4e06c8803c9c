"""Typed input: the annotation says what a body must be; one that is not never reaches `apply`."""

import attrs

import eventflows


@attrs.frozen
class Order:
    """What is in a body."""

    item: str
    prices: list[int]


@eventflows.subscriber("local://typed-orders")
def apply(order: Order) -> None:
    """Show the sum."""
    print(order.item, sum(order.prices))


eventflows.send("local://typed-orders", Order("tea", [3, 4]), {"item": "cup", "prices": [8, "nine"]})
apply.run(until_idle=0.1)
for letter in eventflows.open_subscriber("local://typed-orders?dead-letter").peek(10, timeout=1):
    print("dead letter:", letter.message.headers["ef-error"])
