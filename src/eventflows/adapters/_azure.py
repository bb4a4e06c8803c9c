"""What `servicebus://` and `eventhubs://` share: namespaces, connection strings, credentials, options' values."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from eventflows.errors import (
    AuthenticationError,
    ConfigError,
    ConnectionFailedError,
    MissingExtraError,
    NotFoundError,
    PermissionDeniedError,
)
from eventflows.protocols import Option
from eventflows.secret import Secret

SUFFIX: Final = ".servicebus.windows.net"
OPEN: Final = "open"
PUBLISH: Final = "publish"
"""What was being done, as errors say it."""
_PART: Final = re.compile(r"\s*([A-Za-z]+)\s*=(.*)", re.DOTALL)
_WRITTEN: Final = {
    "endpoint": "Endpoint",
    "sharedaccesskeyname": "SharedAccessKeyName",
    "sharedaccesskey": "SharedAccessKey",
    "sharedaccesssignature": "SharedAccessSignature",
    "usedevelopmentemulator": "UseDevelopmentEmulator",
}


def host_of(authority: str) -> str:
    """Give the full name of a namespace; one without a dot is of the public cloud."""
    return authority + SUFFIX if authority and "." not in authority and ":" not in authority else authority


def connection_string(text: str, *, host: str, entity: str, shown: str) -> str:
    """Fit a connection string to a URL, whose namespace and port win. Nothing of it is in an error.

    Raises:
        ConfigError: It is not one, or it is another namespace's or entity's.
    """
    found = [_PART.fullmatch(part) for part in text.strip().rstrip(";").split(";")]
    parts = {match[1].lower(): match[2].strip() for match in found if match is not None}
    endpoint = re.fullmatch(r"(?:sb|amqps?|https)://([^/]+)/?", parts.get("endpoint", ""))
    if None in found or endpoint is None:
        raise ConfigError(f"{shown}: connection_string= is not a connection string: Endpoint=sb://...;...")
    if host and host.partition(":")[0].lower() != endpoint[1].partition(":")[0].lower():
        raise ConfigError(
            f"{shown}: the connection string is that of {endpoint[1]}, another namespace; correct one of them."
        )
    if "entitypath" in parts and parts["entitypath"].lower() != entity.lower():
        raise ConfigError(f"{shown}: the connection string is only for {parts['entitypath']}; correct one.")
    parts["endpoint"] = f"sb://{host or endpoint[1]}"
    if "usedevelopmentemulator" in parts:  # the clients know one spelling only
        parts["usedevelopmentemulator"] = parts["usedevelopmentemulator"].lower()
    return ";".join(f"{_WRITTEN[name]}={value}" for name, value in parts.items() if name in _WRITTEN)


def default_credential() -> Any:  # noqa: ANN401 - a credential of azure-identity
    """Make the credential that finds its own way: environment, managed identity, command line.

    Raises:
        MissingExtraError: azure-identity is not installed.
    """
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        raise MissingExtraError(
            "Credentials of Azure AD need azure-identity. Install eventflows[identity], or give connection_string=."
        ) from None
    return DefaultAzureCredential()


def secret_text(value: object) -> Secret:
    """Take a connection string, hidden.

    Raises:
        ValueError: It is neither a `Secret` nor text.
    """
    if isinstance(value, Secret):
        return value
    if not isinstance(value, str) or not value:
        raise ValueError("expected Secret.env(...) or Secret.file(...)")
    return Secret(value)


def credential(value: object) -> object:
    if not callable(getattr(value, "get_token", None)):
        raise ValueError("expected a credential of azure-identity, with get_token()")
    return value


def some_text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("expected text")
    return value


def flag(value: object) -> bool:
    if value not in ("", True):
        raise ValueError("it takes no value")
    return True


READ: Final = 'Give it the right to listen: a policy with "Listen", or the role "Data Receiver".'
WRITE: Final = 'Give it the right to send: a policy with "Send", or the role "Data Sender".'


def mend(error: Exception, *, missing: str, denied: str) -> str:
    """Say what to do about what `check` has met.

    Args:
        error: Ours.
        missing: What to do where something is not there.
        denied: What to do where we may not.
    """
    fixes = {
        NotFoundError: missing,
        PermissionDeniedError: denied,
        AuthenticationError: "Correct connection_string=, or sign in with what azure-identity looks for.",
        ConnectionFailedError: "Open port 5671 to the namespace, and see whether its name is right.",
    }
    return next((fix for kind, fix in fixes.items() if isinstance(error, kind)), "Mend what it says.")


COMMON: Final = (
    Option(
        name="connection-string",
        parse=secret_text,
        about="a Secret: the namespace's connection string (default: what azure-identity finds)",
    ),
    Option(name="credential", parse=credential, about="a credential of azure-identity"),
)
EMULATOR: Final = Option(name="emulator", parse=flag, about="plain TCP, to the port of the URL, as the emulator has it")


def emulated(text: str, options: Mapping[str, object]) -> str:
    """Mark a connection string as the emulator's, where the option says so."""
    wanted = "emulator" in options and "UseDevelopmentEmulator" not in text
    return f"{text};UseDevelopmentEmulator=true" if wanted else text
