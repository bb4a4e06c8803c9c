"""What librdkafka is told because of the options."""

from __future__ import annotations

import logging
from typing import Any, Final

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_clients import Options
from eventflows.protocols import Location
from eventflows.secret import Secret

LOGGER: Final = logging.getLogger("librdkafka")
"""Its own log; at its level WARNING it would tell every broken connection, which we tell as errors."""


def client_config(location: Location, options: Options) -> dict[str, Any]:
    """Give the part of the configuration that says where, and who we are; reads secrets and files.

    Raises:
        ConfigError: A secret, a CA or a certificate cannot be read.
    """
    config: dict[str, Any] = {
        "bootstrap.servers": location.authority,
        "security.protocol": given.protocol(options),
        "reconnect.backoff.max.ms": 500,
        "socket.timeout.ms": 10_000,
        "allow.auto.create.topics": False,
        "topic.metadata.refresh.interval.ms": 5_000,
        "topic.metadata.propagation.max.ms": 5_000,
        "log.connection.close": False,
        "logger": LOGGER,
    }
    if given.encrypted(options):
        config |= _tls(location, options)
    password = options.get("password")
    if isinstance(password, Secret):
        config["sasl.mechanism"] = options.get("sasl", given.MECHANISMS[0])
        config["sasl.username"] = options["username"]
        config["sasl.password"] = password.reveal()
    return config


def _tls(location: Location, options: Options) -> dict[str, Any]:
    given.load_tls(location, options)  # librdkafka tells less of what is wrong with a file
    config: dict[str, Any] = {}
    ca = options.get("ca")
    if ca is not None:
        config["ssl.ca.pem" if "-----BEGIN" in str(ca) else "ssl.ca.location"] = str(ca)
    if "cert" in options:
        config["ssl.certificate.location"] = str(options["cert"])
        config["ssl.key.location"] = str(options.get("key", options["cert"]))
    return config
