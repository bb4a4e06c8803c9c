"""What kafka-python is told because of the options."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from eventflows.adapters import _kafka_options as given
from eventflows.errors import ConfigError
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
        config["ssl_context"] = _tls(location, options)
    password = options.get("password")
    if isinstance(password, Secret):
        config["sasl_mechanism"] = options.get("sasl", given.MECHANISMS[0])
        config["sasl_plain_username"] = options["username"]
        config["sasl_plain_password"] = password.reveal()
    return config


def _tls(location: Location, options: Mapping[str, object]) -> ssl.SSLContext:
    ca = options.get("ca")
    pem = isinstance(ca, str) and "-----BEGIN" in ca
    try:
        context = ssl.create_default_context(
            cadata=str(ca) if pem else None, cafile=None if pem or ca is None else str(ca)
        )
    except (OSError, ssl.SSLError) as error:
        shown = "the PEM text" if pem else ca
        raise ConfigError(f"{location.text}: ca=: {shown} cannot be used: {type(error).__name__}.") from error
    if "cert" in options:
        key = options.get("key")
        try:
            context.load_cert_chain(str(options["cert"]), None if key is None else str(key))
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{location.text}: cert= and key= cannot be used: {type(error).__name__}.") from error
    return context
