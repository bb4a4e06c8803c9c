"""What `apply` looks like: its input, its state, its delivery."""

from __future__ import annotations

import inspect
import pathlib
import sys
import typing
from collections.abc import Callable
from typing import Any

import attrs

from eventflows.errors import ConfigError
from eventflows.message import Delivery

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def name_of(function: Callable[..., Any]) -> str:
    """Name a function as `module:qualname`, the same however its file was started."""
    qualname = getattr(function, "__qualname__", type(function).__qualname__)
    module = getattr(function, "__module__", None) or "__main__"
    if module in ("__main__", "__mp_main__"):  # the second is the first, as a worker process imports it
        main = sys.modules.get(module)
        spec = getattr(main, "__spec__", None)
        file = getattr(main, "__file__", None)
        if spec is not None and spec.name not in ("__main__", "__mp_main__"):
            module = spec.name.removesuffix(".__main__")
        elif file is not None:
            module = pathlib.Path(file).stem
    return f"{module}:{qualname}"


def check_function(function: object, *, where: str, loads: bool) -> inspect.Signature:
    """Refuse what cannot be an `apply`.

    Args:
        function: What was decorated.
        where: The decorator, for the error.
        loads: Whether there is a `load=`.

    Returns:
        Its signature.

    Raises:
        ConfigError: It is no function, a generator function, a class, or takes other parameters than `apply` may.
    """
    if inspect.isclass(function) or not callable(function):
        raise ConfigError(f"{where} decorates a function apply(input), not {_kind(function)}.")
    name = name_of(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigError(
            f"{where} on {name}: a generator function cannot be an apply. "
            "Return one result, or Messages([...]) for several."
        )
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    extra = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    most = 2 if loads else 1
    if not positional or len(positional) > 2 or any(p.kind is p.VAR_POSITIONAL for p in parameters):
        raise ConfigError(
            f"{where} on {name}{signature}: expected apply(input), or apply(input, state) with load=, "
            f"and it takes {len(positional)} positional parameters."
        )
    if len(required) > most:
        raise ConfigError(
            f"{where} on {name}{signature}: its second parameter is the state, and there is no load= to make one."
        )
    unknown = [n for n in extra if "Delivery" not in str(signature.parameters[n].annotation)]
    if unknown:
        raise ConfigError(
            f"{where} on {name}{signature}: nobody gives it {unknown[0]!r}. "
            "The only keyword-only parameter is the delivery: *, delivery: Delivery | None = None."
        )
    return signature


def check_timeout(function: Callable[..., Any], executor: str) -> None:
    """Refuse `timeout=` where nothing could end a call.

    Raises:
        ConfigError: A plain function on a thread: no thread can be ended from outside.
    """
    if executor == "thread" and not is_coroutine(function):
        raise ConfigError(
            f"@subscriber on {name_of(function)}: timeout= cannot end a call on a thread. "
            'Add executor="process", or make apply a coroutine function (async def).'
        )


def _kind(thing: object) -> str:
    if isinstance(thing, (staticmethod, classmethod)):
        return f"a {type(thing).__name__}; decorate the bound method: subscriber(url)(scorer.apply)"
    return f"the class {thing.__qualname__}" if inspect.isclass(thing) else f"a {type(thing).__name__}"


def is_coroutine(function: Callable[..., Any]) -> bool:
    """Say whether a call of it must be awaited; an object whose `__call__` is a coroutine function counts."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004 - not whether it can be called, but how
    )


@attrs.frozen
class Resolved:
    """What the annotations of `apply` say."""

    input: object
    """The annotation of the input; `inspect.Parameter.empty` without one."""
    takes_state: bool
    delivery: str | None
    """The keyword of the delivery; None: it does not take one."""


def resolve(function: Callable[..., Any], signature: inspect.Signature, name: str) -> Resolved:
    """Resolve the annotations; they may name things that did not exist at decoration.

    Raises:
        ConfigError: An annotation cannot be resolved; the text names the function and what is missing.
    """
    try:
        hints = typing.get_type_hints(inspect.unwrap(getattr(function, "__func__", function)), include_extras=True)
    except Exception as error:
        raise ConfigError(
            f"flow {name}: an annotation of {getattr(function, '__qualname__', name)} cannot be resolved ({error}). "
            "Import what it names at the top of its module."
        ) from error
    parameters = list(signature.parameters.values())
    positional = [p for p in parameters if p.kind in _POSITIONAL]
    delivery = None
    for parameter in parameters:
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        hint = hints.get(parameter.name, parameter.annotation)
        if _mentions_delivery(hint):
            delivery = parameter.name
        elif parameter.default is parameter.empty:
            raise ConfigError(
                f"flow {name}: nobody gives apply its keyword {parameter.name!r}; annotate it as Delivery, "
                "or give it a default."
            )
    given = hints.get(positional[0].name, inspect.Parameter.empty)
    return Resolved(given, len(positional) > 1, delivery)


def _mentions_delivery(hint: object) -> bool:
    return hint is Delivery or any(_mentions_delivery(part) for part in typing.get_args(hint))


def in_class_body(depth: int) -> bool:
    """Say whether the caller `depth` frames up is a class body."""
    frame = sys._getframe(depth + 1)
    return "__qualname__" in frame.f_locals and "__module__" in frame.f_locals and frame.f_code.co_name != "<module>"
