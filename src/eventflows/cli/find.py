"""Flows by name: `module:flow`, or `file.py:flow`."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import os
import pathlib
import sys
import sysconfig
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
    thing, module = find_thing(name)
    if not isinstance(thing, Flow):
        raise ConfigError(
            f"{name} is a {type(thing).__name__}, not a flow: decorate it with @subscriber(url)"
            f"{_flows_of(module, name.rpartition(':')[2])}"
        )
    return thing


def flows_in(name: str) -> list[tuple[str, Flow[..., Any]]]:
    """Import a module, or a file, and give its flows by name, sorted.

    Raises:
        ConfigError: There is no such module, or it cannot be imported; the text says which, and where.
    """
    module = _import_file(name) if name.endswith(".py") else _import_module(name, "flow")
    return sorted((key, value) for key, value in vars(module).items() if isinstance(value, Flow))


def find_thing(name: str) -> tuple[object, ModuleType]:
    """Import a module, or a file, and give what has a name in it, and the module.

    Raises:
        ConfigError: There is no such module or name, or the module cannot be imported.
    """
    place, mark, attribute = name.rpartition(":")
    if not mark or not place or not attribute:
        raise ConfigError(f"{name!r} is not MODULE:FLOW; write it as scorer:apply, or scorer.py:apply.")
    module = _import_file(place) if place.endswith(".py") else _import_module(place, attribute)
    thing: object = module
    for part in attribute.split("."):
        try:
            thing = getattr(thing, part)
        except AttributeError:
            raise ConfigError(f"{place} has no flow {attribute!r}{_flows_of(module, attribute)}") from None
        except Exception as error:  # a property, or a module's __getattr__
            raise ConfigError(
                f"{part!r} of {name} cannot be looked at: {type(error).__name__}{_place_of(error)}. "
                "Mend it and start again."
            ) from error
    return thing, module


def _flows_of(module: ModuleType, wanted: str) -> str:
    flows = sorted(name for name, value in vars(module).items() if isinstance(value, Flow))
    if not flows:
        return ". It has no flow at all; @subscriber(url) makes one of a function."
    near = difflib.get_close_matches(wanted, flows, n=1)
    return f"; did you mean {near[0]!r}?" if near else f". It has: {', '.join(flows)}."


def _import_module(name: str, attribute: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigError(f"{name!r} is not a module's name; write a file with its ending: {name}.py:{attribute}.")
    first = name.partition(".")[0]
    if first in sys.stdlib_module_names:
        raise _like_pythons_own(name, first)
    _look_in(os.getcwd())
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise ConfigError(
                f"there is no module {name!r} in this folder or installed{_modules_like(name)}"
            ) from error
        raise _broken(name, error) from error
    except (Exception, SystemExit) as error:
        raise _broken(name, error) from error


def _like_pythons_own(path: str, name: str) -> ConfigError:
    # Under this name Python and every library would meet the flow's module where they want Python's.
    return ConfigError(f"{path} has the name of one of Python's own modules, {name!r}; rename the file.")


def _look_in(folder: str) -> None:
    # What the library imports late is imported before a file of the folder can stand in its way.
    import json
    import uuid

    import orjson

    del json, uuid, orjson
    if folder not in sys.path:
        sys.path.insert(0, folder)


def _modules_like(name: str) -> str:
    here = [path.stem for path in pathlib.Path().glob("*.py")]
    here += [path.parent.name for path in pathlib.Path().glob("*/__init__.py")]
    near = difflib.get_close_matches(name, here, n=1)
    return f"; did you mean {near[0]!r}?" if near else ". Change to its folder, or give its file: path/to/file.py:flow."


def _import_file(path: str) -> ModuleType:
    file = pathlib.Path(path)
    if not file.is_file():
        near = difflib.get_close_matches(file.name, [found.name for found in file.parent.glob("*.py")], n=1)
        raise ConfigError(f"there is no file {path}" + (f"; did you mean {file.parent / near[0]}?" if near else "."))
    name, file = file.stem, file.resolve()
    if name in sys.stdlib_module_names:
        raise _like_pythons_own(path, name)
    known = sys.modules.get(name)
    if known is not None:
        # A flow's name has the module's in it, so the second of two modules cannot just be called otherwise.
        origin = getattr(known, "__file__", None)
        if origin is None or pathlib.Path(origin).resolve() != file:
            raise ConfigError(
                f"{path} has the name of another module that is imported already, {name!r}; rename it, "
                "or run it in a process of its own."
            )
        return known
    _look_in(str(file.parent))
    try:
        return _load(name, file)
    except (Exception, SystemExit) as error:
        raise _broken(path, error, file) from error


def _load(name: str, file: pathlib.Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported", name=name)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _broken(name: str, error: BaseException, file: pathlib.Path | None = None) -> ConfigError:
    where = _place_of(error)
    if isinstance(error, ConfigError):  # its text is ours, so there is nothing to hide in it
        return ConfigError(f"{name}{where}: {error}")
    more = ""
    if isinstance(error, ModuleNotFoundError):
        more = f" ({error.name!r} is not installed)"
    elif isinstance(error, ImportError) and file is not None and (file.parent / "__init__.py").exists():
        package = file.parent.name
        more = f" (it is part of a package; from {file.parent.parent} it is {package}.{file.stem})"
    whole = f"python {name}" if file is not None else f"python -c 'import {name}'"
    return ConfigError(
        f"{name} cannot be imported: {type(error).__name__}{where}{more}. To see the whole error: {whole}"
    )


def _place_of(error: BaseException) -> str:
    """Say where in somebody's own code an import failed; nothing where that is not known."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        return f" at {_relative(error.filename)}:{error.lineno}"
    paths = sysconfig.get_paths()
    libraries = (paths["stdlib"], paths["purelib"], paths["platlib"], str(pathlib.Path(__file__).parent.parent), "<")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not frame.filename.startswith(libraries)]
    return f" at {_relative(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""


def _relative(filename: str) -> str:
    path = pathlib.Path(filename)
    return str(path.relative_to(pathlib.Path.cwd())) if path.is_relative_to(pathlib.Path.cwd()) else filename
