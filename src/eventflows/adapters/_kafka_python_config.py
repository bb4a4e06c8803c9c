"""What kafka-python is told because of the options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from eventflows.adapters import _kafka_options as given
from eventflows.protocols import Location
from eventflows.secret import Secret


def client_config(location: Location, options: Mapping[str, object]) -> dict[str, Any]:
    """Give the part of kafka-python's configuration that says where, and who we are; reads secrets and files.

    Raises:
        ConfigError: A secret, a CA or a certificate cannot be read.
    """
    config: dict[str, Any] = {
        "bootstrap_servers": location.authority.split(","),
        "security_protocol": given.protocol(options),
        "reconnect_backoff_max_ms": 500,
        "metrics_enabled": False,
    }
    if given.encrypted(options):
        config["ssl_context"] = given.load_tls(location, options)
    password = options.get("password")
    if isinstance(password, Secret):
        config["sasl_mechanism"] = options.get("sasl", given.MECHANISMS[0])
        config["sasl_plain_username"] = options["username"]
        config["sasl_plain_password"] = password.reveal()
    return config
