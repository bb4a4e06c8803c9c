"""Flows by name: `module:flow`, or `file.py:flow`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pathlib
import sys
import traceback
from types import ModuleType
from typing import Any

from eventflows.errors import ConfigError
from eventflows.flow import Flow


def find_flow(name: str) -> Flow[..., Any]:
    """Import a module, or a file, and find a flow in it.

    Raises:
        ConfigError: There is no such module or flow, or the module cannot be imported; the text says which, and where.
    """
    place, mark, attribute = name.rpartition(":")
    if not mark or not place or not attribute:
        raise ConfigError(f"{name!r} is not MODULE:FLOW; write it as scorer:apply, or scorer.py:apply.")
    module = _import_file(place) if place.endswith(".py") else _import_module(place)
    thing: object = module
    for part in attribute.split("."):
        if not hasattr(thing, part):
            raise ConfigError(f"{place} has no flow {attribute!r}{_flows_of(module, attribute)}")
        thing = getattr(thing, part)
    if not isinstance(thing, Flow):
        raise ConfigError(
            f"{name} is a {type(thing).__name__}, not a flow; decorate it with @subscriber(url)"
            f"{_flows_of(module, attribute)}"
        )
    return thing


def _flows_of(module: ModuleType, wanted: str) -> str:
    flows = sorted(name for name, value in vars(module).items() if isinstance(value, Flow))
    if not flows:
        return ". It has no flow at all: decorate a function with @subscriber(url)."
    near = difflib.get_close_matches(wanted, flows, n=1)
    return f"; did you mean {near[0]!r}?" if near else f". It has: {', '.join(flows)}."


def _import_module(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            here = f" There is a file {name}.py here." if pathlib.Path(f"{name}.py").exists() else ""
            raise ConfigError(
                f"no module {name!r} here ({os.getcwd()}) or among the installed ones.{here} "
                "Change to its folder, or give the file: path/to/file.py:flow."
            ) from error
        raise _broken(name, error) from error
    except Exception as error:
        raise _broken(name, error) from error


def _import_file(path: str) -> ModuleType:
    file = pathlib.Path(path)
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [p.name for p in file.parent.glob("*.py")], n=1)
        raise ConfigError(f"there is no file {path}" + (f"; did you mean {file.parent / near[0]}?" if near else "."))
    sys.path.insert(0, str(file.resolve().parent))
    try:
        return importlib.import_module(file.stem) if file.stem.isidentifier() else _load_spec(file)
    except Exception as error:
        raise _broken(path, error) from error


def _load_spec(file: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module
    spec.loader.exec_module(module)
    return module


def _broken(name: str, error: BaseException) -> ConfigError:
    if isinstance(error, ConfigError):
        return ConfigError(f"{name}, while it was imported: {error}")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    where = f" at {frames[-1].filename}:{frames[-1].lineno}" if frames else ""
    if isinstance(error, SyntaxError):
        where = f" at {error.filename}:{error.lineno}"
    missing = f" ({error.name!r} is not installed)" if isinstance(error, ModuleNotFoundError) else ""
    return ConfigError(f"{name} cannot be imported: {type(error).__name__}{where}{missing}. Mend it and start again.")
