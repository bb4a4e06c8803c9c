"""How a worker process finds a flow: by module and name, as pickles find classes."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType
from typing import Any

import attrs

from eventflows.errors import ConfigError

WAY_OUT = 'Put it into a module of its own at the top level and import it, or leave out executor="process".'


@attrs.frozen(kw_only=True)
class Reference:
    """Where a worker process finds a flow."""

    module: str
    path: str
    """Attribute by attribute, from the module on."""

    def resolve(self) -> Any:  # noqa: ANN401 - a flow, which is above this module
        """Import it."""
        thing: object = importlib.import_module(self.module)
        for part in self.path.split("."):
            thing = getattr(thing, part)
        return thing


def reference_to(flow: object, name: str) -> Reference:
    """Say where a worker process finds a flow.

    Args:
        flow: It.
        name: Its name, for the error.

    Raises:
        ConfigError: It cannot be found by a process that starts anew: it was made in a notebook, on a command line
            or inside a function. The text says what to do.
    """
    module_name = str(getattr(flow, "__module__", "__main__"))
    path = str(getattr(flow, "__qualname__", ""))
    module = sys.modules.get(module_name)
    if module_name == "__main__" and not os.path.isfile(getattr(module, "__file__", None) or ""):
        raise ConfigError(
            f"flow {name}: worker processes import apply, and one that was typed into a notebook or a prompt cannot "
            f"be imported. {WAY_OUT}"
        )
    if module is not None and "<locals>" not in path:
        if _at(module, path) is flow:
            return Reference(module=module_name, path=path)
        for other, value in vars(module).items():
            if value is flow:
                return Reference(module=module_name, path=other)
    raise ConfigError(
        f"flow {name}: worker processes import apply, and {module_name} has no {path} at its top level that is this "
        f"flow. {WAY_OUT}"
    )


def _at(module: ModuleType, path: str) -> object:
    thing: object = module
    for part in path.split("."):
        thing = getattr(thing, part, None)
    return thing
