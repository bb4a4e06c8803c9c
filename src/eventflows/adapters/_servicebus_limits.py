"""What an entity allows, as its administration tells whoever may manage it: how long locks are, how many deliveries.

AMQP tells neither without taking a message. The administration is another service: HTTPS, port 443, the claim Manage.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import attrs

from eventflows.adapters._azure import connection_string, default_credential
from eventflows.adapters._lease_check import of_lease
from eventflows.adapters._servicebus_place import Place
from eventflows.errors import ConfigError
from eventflows.protocols import Finding
from eventflows.secret import Secret

CONNECTING: Final = 5.0
READING: Final = 10.0
UNKNOWN: Final = "how long its locks are, and how often it delivers a message, is not known"
Administration = Any
"""`azure.servicebus.management.ServiceBusAdministrationClient`."""
Made = Callable[[Place, Mapping[str, object]], Administration]


def administration_of(place: Place, options: Mapping[str, object]) -> Administration:
    """Make the client of a namespace's administration, with the credentials of the source; it connects later.

    Raises:
        ConfigError: It is the emulator, whose administration the client cannot reach: it speaks HTTPS only.
    """
    from azure.servicebus.management import ServiceBusAdministrationClient

    settings: dict[str, Any] = {"connection_timeout": CONNECTING, "read_timeout": READING, "retry_total": 0}
    host = place.host.partition(":")[0]  # a port in the URL is that of AMQP
    given = options.get("connection-string")
    text = given.reveal() if isinstance(given, Secret) else ""
    if "emulator" in options or "usedevelopmentemulator=true" in text.lower():
        raise ConfigError("the emulator is not asked")
    if not text:
        credential: Any = options.get("credential") or default_credential()
        return ServiceBusAdministrationClient(host, credential, **settings)
    fitted = connection_string(text, host=host, entity=place.entity, shown=place.text)
    return ServiceBusAdministrationClient.from_connection_string(fitted, **settings)


def limits(place: Place, options: Mapping[str, object], made: Made) -> Sequence[Finding]:
    """Say whether locks are long enough and deliveries enough; in one line why not, where that is not told."""
    try:
        with made(attrs.evolve(place, dead=False), options) as administration:
            found = (
                administration.get_queue(place.entity)
                if place.subscription is None
                else administration.get_subscription(place.entity, place.subscription)
            )
    except ConfigError as error:
        return [Finding("ok", f"{UNKNOWN}: {error}")]
    except Exception as error:  # noqa: BLE001 - it can be read all the same, which was found before
        return [Finding("ok", f"{UNKNOWN}: {_why(error)}")]
    lock = of_lease(found.lock_duration.total_seconds(), "Set the lock duration to ")
    if place.dead:  # nothing moves a message from there
        return [lock]
    count = int(found.max_delivery_count)
    said = f"the service moves a message to the dead letters itself after {count} deliveries"
    return [lock, Finding("ok", said, deliveries=count)]


def _why(error: Exception) -> str:
    status = getattr(error, "status_code", None)
    if status in (401, 403):
        return 'to read it needs Manage: a policy with "Manage", or the role "Data Owner"'
    return f"its administration (HTTPS, port 443) gave {type(error).__name__}{'' if status is None else f' {status}'}"
