"""A publisher: every call publishes what it returns, and returns it once the broker has it."""

import eventflows


@eventflows.publisher("local://readings", key=lambda reading: reading["sensor"])
def apply(input):
    """Turn a raw value into a reading."""
    return {"sensor": input["sensor"], "celsius": (input["fahrenheit"] - 32) / 1.8}


print(apply({"sensor": "roof", "fahrenheit": 68}))
for delivery in eventflows.open_subscriber("local://readings").peek(10, timeout=1):
    print(delivery.key, delivery.message.body.decode())
