"""URL to adapter: what is taken, what is refused, and what is never shown."""

from __future__ import annotations

import importlib
import pathlib
import sys
import textwrap
import traceback
from collections.abc import Iterator

import pytest

from eventflows.errors import ConfigError
from eventflows.locate import adapter, capabilities, open_publisher, open_subscriber, parse, resolve, schemes
from eventflows.secret import Secret

HIDDEN = "hunter2"
MODULE = "parrot_adapter"
SOURCE = """
    from eventflows.errors import ConfigError
    from eventflows.protocols import AdapterSpec, Capabilities, Option

    def number(value):
        return float(value)

    def validate(location, values, side):
        if location.authority == "nobody":
            raise ConfigError(f"{location.text}: nobody is there.")

    WAIT = Option(name="wait", parse=number, about="seconds to wait (default 1)")
    FROM = Option(name="from", parse=str, about="where to begin")
    KEY = Option(name="role-key", parse=lambda value: value, about="the role")
    DEAD = Option(name="dead-letter", parse=str, about="reads the dead letters", url_only=True)
    ADAPTER = AdapterSpec(
        scheme="parrot",
        form="parrot://place",
        capabilities=lambda location, values: Capabilities(settle="message", redeliver=bool(values)),
        validate=validate,
        subscriber=lambda location, values: ("subscriber", location.authority, dict(values)),
        publisher=lambda location, values: ("publisher", location.authority, dict(values)),
        source_options=(WAIT, FROM, KEY, DEAD),
        destination_options=(WAIT,),
    )
    NO_ADAPTER = object()
"""


@pytest.fixture(autouse=True)
def parrot(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An adapter of somebody else's, installed as a package would be."""
    (tmp_path / f"{MODULE}.py").write_text(textwrap.dedent(SOURCE))
    info = tmp_path / "parrot_adapter-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: parrot-adapter\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        f"[eventflows.adapters]\nparrot = {MODULE}:ADAPTER\ndodo = {MODULE}:NO_ADAPTER\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield
    sys.modules.pop(MODULE, None)
    importlib.invalidate_caches()


def refusal(url: object, side: str = "source", **keywords: object) -> str:
    """Why a URL is refused, with everything a traceback shows."""
    with pytest.raises(ConfigError) as caught:
        resolve(url, keywords, side)  # type: ignore[arg-type]
    return "".join(traceback.format_exception(caught.value, limit=0))


def values(url: str, environment: dict[str, str] | None = None, **keywords: object) -> dict[str, object]:
    """The options of a source."""
    return resolve(url, keywords, "source", environment=environment)[2]


# --- taken apart -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "scheme", "authority", "path"),
    [
        ("parrot://Orders", "parrot", "Orders", ""),
        ("PARROT://Orders", "parrot", "Orders", ""),
        ("parrot://H1:9092,h2:9092/My.Topic", "parrot", "H1:9092,h2:9092", "My.Topic"),
        ("parrot://eu-west-1/123456789012/a.fifo", "parrot", "eu-west-1", "123456789012/a.fifo"),
        ("parrot:///topic?connection=prod", "parrot", "", "topic"),
        ("parrot://a%20b/c%2Fd%40e+f", "parrot", "a b", "c/d@e+f"),
    ],
)
def test_url_is_taken_apart(url: str, scheme: str, authority: str, path: str) -> None:
    """Names keep their case, percent signs are decoded, and a plus stays a plus."""
    location = parse(url)

    assert (location.scheme, location.authority, location.path) == (scheme, authority, path)


@pytest.mark.parametrize("written", ["2026-01-01T00:00:00+00:00", "2026-01-01T00:00:00%2B00:00"])
def test_time_zone_survives_in_a_query(written: str) -> None:
    """A time with a zone may be written as it is, or with the plus encoded."""
    assert values(f"parrot://a?from={written}") == {"from": "2026-01-01T00:00:00+00:00"}


@pytest.mark.parametrize(
    ("query", "parsed"),
    [("", {}), ("&", {}), ("a", {"a": ""}), ("a=", {"a": ""}), ("a=b=c", {"a": "b=c"}), ("a=x@y", {"a": "x@y"})],
)
def test_query_is_taken_apart(query: str, parsed: dict[str, str]) -> None:
    """A bare name has an empty value, and a value may hold what a name may not."""
    assert parse(f"parrot://a?{query}").query == parsed


@pytest.mark.parametrize("url", ["orders", "", "://a", "9x://a", "parrot:a", " parrot://a"])
def test_text_that_is_no_url_is_refused(url: str) -> None:
    """What is no URL is refused with an example of one."""
    assert "local://orders" in refusal(url)


@pytest.mark.parametrize("url", [None, b"parrot://a", 7])
def test_url_is_text(url: object) -> None:
    """Anything but text is refused by its type."""
    assert type(url).__name__ in refusal(url)


def test_fragment_is_refused() -> None:
    """Nothing after a number sign is silently dropped."""
    assert "%23" in refusal("parrot://a#b")


# --- schemes ---------------------------------------------------------------------------------------------------------


def test_installed_adapters_are_known_by_their_scheme() -> None:
    """An adapter of another package is found by its entry point."""
    assert {"local", "parrot"} <= set(schemes())


def test_installed_adapter_is_found() -> None:
    """The adapter of another package is used like a built-in one."""
    assert adapter(parse("parrot://a")).form == "parrot://place"


@pytest.mark.parametrize(("url", "nearest"), [("parot://a", "parrot://"), ("locl://a", "local://")])
def test_unknown_scheme_names_the_nearest(url: str, nearest: str) -> None:
    """A slip in the scheme gets the right one back."""
    assert f"did you mean '{nearest}'" in refusal(url)


def test_unknown_scheme_names_all_when_none_is_near() -> None:
    """A scheme like no other gets the list."""
    assert "local://, parrot://" in refusal("xyz://a")


def test_entry_point_that_is_no_adapter_is_refused() -> None:
    """A package that registers something else is named by its scheme."""
    assert "dodo:// registers a object, not an AdapterSpec" in refusal("dodo://a")


# --- options ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "url", "keywords", "wait"),
    [
        ({"EVENTFLOWS_PARROT_WAIT": "1"}, "parrot://a", {}, 1.0),
        ({"EVENTFLOWS_PARROT_WAIT": "1"}, "parrot://a?wait=2", {}, 2.0),
        ({"EVENTFLOWS_PARROT_WAIT": "1"}, "parrot://a?wait=2", {"wait": 3}, 3.0),
        ({"EVENTFLOWS_PARROT_WAIT": "1"}, "parrot://a", {"wait": 0}, 0.0),
        ({"EVENTFLOWS_OTHER_WAIT": "1"}, "parrot://a?wait=2", {}, 2.0),
        (None, "parrot://a?wait=2", {}, 2.0),
    ],
    ids=["environment", "url", "keyword", "keyword zero", "other scheme", "no environment"],
)
def test_keyword_wins_over_url_over_environment(
    environment: dict[str, str] | None, url: str, keywords: dict[str, object], wait: float
) -> None:
    """What is nearest to the code counts."""
    assert values(url, environment, **keywords) == {"wait": wait}


def test_environment_is_not_read_at_decoration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without being told to, nothing looks into the environment."""
    monkeypatch.setenv("EVENTFLOWS_PARROT_WAIT", "1")

    assert values("parrot://a") == {}


def test_environment_is_read_at_open(monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening an adapter takes what the environment says, dashes as underscores."""
    monkeypatch.setenv("EVENTFLOWS_PARROT_ROLE_KEY", "admin")

    assert open_subscriber("parrot://a") == ("subscriber", "a", {"role-key": "admin"})


def test_environment_does_not_set_what_belongs_in_the_url() -> None:
    """An option of the URL alone cannot be set for every flow at once."""
    assert values("parrot://a", {"EVENTFLOWS_PARROT_DEAD_LETTER": "1"}) == {}


@pytest.mark.parametrize(("keyword", "name"), [("from_", "from"), ("role_key", "role-key"), ("wait", "wait")])
def test_keyword_is_spelled_as_python_allows(keyword: str, name: str) -> None:
    """A name that Python reserves gets an underscore, and a dash is one."""
    assert list(values("parrot://a", **{keyword: "1"})) == [name]


def test_unknown_option_names_the_nearest() -> None:
    """A slip in an option of the URL gets the right one back, and the list."""
    assert "no source option 'wiat'; did you mean 'wait'? It takes: dead-letter, from, role-key, wait." in refusal(
        "parrot://a?wiat=1"
    )


def test_unknown_keyword_names_the_nearest() -> None:
    """A slip in a keyword gets the right one back."""
    assert "did you mean 'wait'" in refusal("parrot://a", wiat=1)


def test_option_of_the_other_side_is_refused() -> None:
    """What a source takes, a destination need not."""
    assert "no destination option 'from'" in refusal("parrot://a?from=1", "destination")


def test_option_given_twice_is_refused() -> None:
    """Two values for one option are one too many, however they are spelled."""
    assert "'wait' comes twice" in refusal("parrot://a?wait=1&w%61it=2")


def test_option_of_the_url_is_refused_as_keyword() -> None:
    """What belongs in the URL is shown there."""
    assert "parrot://a?dead-letter" in refusal("parrot://a", dead_letter="1")


@pytest.mark.parametrize(
    ("url", "environment", "keywords", "place"),
    [
        ("parrot://a?wait=soon", None, {}, r"?wait= in parrot://a?wait=soon"),
        ("parrot://a", {"EVENTFLOWS_PARROT_WAIT": "soon"}, {}, "the environment variable EVENTFLOWS_PARROT_WAIT"),
        ("parrot://a", None, {"wait": "soon"}, "wait= of parrot://a"),
        ("parrot://a", None, {"wait": None}, "wait= of parrot://a"),
    ],
    ids=["url", "environment", "keyword", "wrong type"],
)
def test_wrong_value_says_where_it_came_from(
    url: str, environment: dict[str, str] | None, keywords: dict[str, object], place: str
) -> None:
    """An option's error names the place of the value, and what the option means."""
    with pytest.raises(ConfigError) as caught:
        values(url, environment, **keywords)

    assert (place in str(caught.value), "seconds to wait" in str(caught.value)) == (True, True)


def test_adapter_refuses_what_does_not_fit_together() -> None:
    """The adapter's own check runs before anything connects."""
    assert "nobody is there" in refusal("parrot://nobody")


# --- secrets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "parrot://user:hunter2@place/a",
        "parrot://hunter2@place",
        "parrot://user:hun/hunter2@place/a",
        "parrot://user:hun?hunter2@place/a",
        "parrot://user:hun#hunter2@place/a",
        "parrot://a?password=hunter2",
        "parrot://a?wait=1&Password=hunter2",
        "parrot://a?p%61ssword=hunter2",
        "parrot://a?sasl-password=hunter2",
        "parrot://a?SharedAccessKey=hunter2",
        "parrot://a?account-key=hunter2",
        "parrot://a?api_key=hunter2",
        "parrot://a?aws_secret_access_key=hunter2",
        "parrot://a?sas=hunter2",
        "parrot://a?sig=hunter2",
        "parrot://a?pwd=hunter2",
        "parrot://a?auth_token=hunter2",
        "parrot://a?connection_string=hunter2",
        "Endpoint=sb://place/;SharedAccessKeyName=root;SharedAccessKey=hunter2",
        "user:hunter2@place",
    ],
)
def test_secret_in_a_url_is_refused_and_not_shown(url: str) -> None:
    """A password is no part of a URL, and the error does not repeat it."""
    assert HIDDEN not in refusal(url)


@pytest.mark.parametrize(
    "url", ["parrot://u:hunter2@a", "parrot://a?password=hunter2", "parrot://a?wait=1&token=hunter2"]
)
def test_secret_in_a_url_is_told_the_way_out(url: str) -> None:
    """The error says how a secret is given."""
    assert "Secret.env" in refusal(url)


def test_value_of_an_unknown_option_is_not_shown_when_another_one_is_wrong() -> None:
    """Names are checked before values, because an error about a value shows the URL."""
    assert HIDDEN not in refusal("parrot://a?wait=soon&creds=hunter2")


@pytest.mark.parametrize("name", ["design", "assign", "sasl-mechanism", "partition-key"])
def test_harmless_name_is_not_taken_for_a_secret(name: str) -> None:
    """A name that only looks like a secret's is an unknown option like any other."""
    assert "no source option" in refusal(f"parrot://a?{name}=1")


def test_secret_as_a_keyword_is_handed_over_unread() -> None:
    """A Secret goes to the adapter as it is."""
    assert values("parrot://a", role_key=Secret(HIDDEN)) == {"role-key": Secret(HIDDEN)}


def test_secret_as_a_wrong_value_is_not_shown() -> None:
    """A Secret where a number belongs is refused without its value."""
    assert HIDDEN not in refusal("parrot://a", wait=Secret(HIDDEN))


# --- adapters made ---------------------------------------------------------------------------------------------------


def test_publisher_gets_its_options() -> None:
    """A destination's adapter is made with what was given."""
    assert open_publisher("parrot://a?wait=2") == ("publisher", "a", {"wait": 2.0})


def test_capabilities_are_known_before_connecting() -> None:
    """What a broker can do may hang on the options."""
    assert [capabilities(url, {}, "source").redeliver for url in ("parrot://a", "parrot://a?wait=1")] == [False, True]
