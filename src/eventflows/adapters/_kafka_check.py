"""What `eventflows check` says of a topic and of a group; nobody joins, and nothing is published."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

import attrs

from eventflows.adapters import _kafka_options as given
from eventflows.adapters._kafka_clients import Client, Options, Standing, Topic
from eventflows.adapters._kafka_errors import FIXES
from eventflows.errors import BrokerError, ConfigError
from eventflows.protocols import Finding, Location

SECONDS: Final = 10.0
"""For one question."""
_SHARING: Final = {"PreparingRebalance", "CompletingRebalance"}


def check_source(client: Client, location: Location, options: Options) -> list[Finding]:
    """Say, one line each, whether brokers, topics and group can be used."""
    try:
        topics = _topics(client, location, options)
        seen, standing = client.inspect(location, options, topics, str(options["group"]), SECONDS)
    except (BrokerError, ConfigError) as error:
        return [_failed(error)]
    findings = [Finding("ok", f"{location.text}: the brokers answer, and accept who we are")]
    if not topics:
        fix = "Correct the pattern, or create a topic."
        findings.append(Finding("warning", f"no topic matches {location.path}", fix))
    findings += [_topic(name, seen, "READ", "read") for name in topics]
    findings += _group(str(options["group"]), standing, sum(one.partitions for one in seen.values()))
    return findings


def check_destination(client: Client, location: Location, options: Options) -> list[Finding]:
    """Say, one line each, whether brokers and topic can be used."""
    try:
        seen, _ = client.inspect(location, options, [location.path], None, SECONDS)
    except (BrokerError, ConfigError) as error:
        return [_failed(error)]
    return [
        Finding("ok", f"{location.text}: the brokers answer, and accept who we are"),
        attrs.evolve(_topic(location.path, seen, "WRITE", "written to"), lanes=None),
    ]


def _failed(error: Exception) -> Finding:
    """Divide the text of an error into what is wrong and the next step."""
    text = str(error)
    for fix in FIXES.values():
        if text.endswith(fix):
            return Finding("error", text.removesuffix(fix).rstrip(), fix)
    return Finding("error", text, "Mend what it says.")


def _topics(client: Client, location: Location, options: Options) -> list[str]:
    if not options.get("pattern"):
        return given.topics(location)
    found = client.topics(location, options, SECONDS)
    return sorted(name for name in found if re.match(location.path, name) and not name.startswith("__"))


def _topic(name: str, seen: Mapping[str, Topic], right: str, what: str) -> Finding:
    topic = seen[name]
    if topic.denied or (topic.partitions and topic.rights is not None and right not in topic.rights):
        return Finding("error", f"topic {name} may not be {what}", f"Ask for an ACL on it: {right}.")
    if not topic.partitions:
        return Finding("error", f"there is no topic {name}", "Create it, or correct the URL.")
    some = _counted(topic.partitions, "partition")
    return Finding("ok", f"topic {name} has {some}, and may be {what}", lanes=topic.partitions)


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _group(name: str, standing: Standing | None, partitions: int) -> Iterator[Finding]:
    if standing is None or (standing.rights is not None and "READ" not in standing.rights):
        yield Finding("error", f"group {name} may not be used", "Ask for an ACL on the group: READ.")
    elif standing.protocol not in ("", "consumer"):
        fix = "Choose another group."
        yield Finding("error", f"group {name} is no consumer group: it is of the kind {standing.protocol}", fix)
    elif standing.state in _SHARING:
        fix = "Check again. If it goes on for minutes, look for members that come and go."
        yield Finding("warning", f"group {name} is sharing its partitions out anew", fix)
    elif standing.members > partitions > 0:
        text = f"group {name} has {standing.members} members for {_counted(partitions, 'partition')}: "
        fix = "Run fewer processes, or give the topic more partitions."
        yield Finding("warning", f"{text}{standing.members - partitions} idle", fix)
    else:
        yield Finding("ok", f"group {name} can be used, and has {_counted(standing.members, 'member')} now")
