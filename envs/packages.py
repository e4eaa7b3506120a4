"""Ids of other packages: ``package:Env-v0``, and what to say to whoever writes them otherwise.

Nothing is imported here: packages are known from what pip wrote about them.
"""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import Distribution, PackagePath
from pathlib import Path

import gymnasium

from rlfd.errors import RlfdError, unknown_name

__all__ = ["not_found", "unknown"]

_NEEDS_GYMNASIUM = re.compile(r"(gymnasium|gym)\b", re.IGNORECASE)
_OURS = ("rlfd", "gymnasium", "minari")
WRITTEN = "ids of other packages are written PACKAGE:ID"


def not_found(name: str, error: ModuleNotFoundError) -> RlfdError:
    """Return the error for ``package:Env-v0`` whose package cannot be imported."""
    package, _, gym_id = name.rpartition(":")
    top = package.partition(".")[0]
    message = f"environment '{name}' cannot be found: {error}"
    if error.name is not None and error.name.partition(".")[0] != top:
        return RlfdError(message, f"'{package}' needs that module: install it")
    module = _module_of(package)
    if module is not None:
        hint = f"the package '{package}' is imported as '{module}': write {module}:{gym_id}"
    elif Path(f"{top}.py").is_file() or Path(top).is_dir():
        hint = (
            f"modules in the working folder, as '{top}' is, are found where PYTHONPATH says so: "
            "put PYTHONPATH=. before the command"
        )
    else:
        hint = "install the package before the colon"
    return RlfdError(message, hint)


def unknown(name: str, short_names: Sequence[str], hint: str) -> RlfdError:
    """Return the error for an id that nobody registered.

    Args:
        name: What the user gave; its package was imported.
        short_names: Names that need no package.
        hint: Where to look them up.
    """
    package, _, gym_id = name.rpartition(":")
    holders = [module for module in _holders(gym_id) if module != package]
    if holders:
        where = "' and '".join(holders)
        return RlfdError(
            f"unknown environment '{name}': it is in the installed package '{where}'",
            f"write {holders[0]}:{gym_id}",
        )
    if package:
        own = [f"{package}:{known}" for known in _registered_by(package)]
        if not own:
            return RlfdError(
                f"unknown environment '{name}': importing '{package}' registered none",
                "name the module that registers it with Gymnasium",
            )
        return unknown_name("environment", name, own)
    others = sorted({_name(dist) for dist in _with_environments()})
    hint += f"; {WRITTEN}" + (f" (installed: {', '.join(others)})" if others else "")
    known = [*short_names, *gymnasium.registry]
    return unknown_name("environment", name, known, hint, likeness=0.6)


def _registered_by(package: str) -> list[str]:
    """Return the ids whose classes belong to a package, or which its module speaks of."""
    top, found = package.partition(".")[0], []
    text = _read(getattr(sys.modules.get(package), "__file__", None) or "")
    for gym_id, known in gymnasium.registry.items():
        entry = known.entry_point
        module = entry if isinstance(entry, str) else getattr(entry, "__module__", "")
        if re.split(r"[.:]", module)[0] == top or _quotes(text, gym_id):
            found.append(gym_id)
    return found


def _with_environments() -> Iterator[Distribution]:
    """Yield installed packages that are made for Gymnasium, as far as one can see."""
    for dist in importlib.metadata.distributions():
        needed = dist.requires or ()
        if _name(dist) not in _OURS and any(map(_NEEDS_GYMNASIUM.match, needed)):
            yield dist


def _holders(gym_id: str) -> list[str]:
    """Return the modules of installed packages that speak of registering an id."""
    found = []
    for dist in _with_environments():
        modules = (
            _module(file)
            for file in dist.files or ()
            if file.suffix == ".py" and _quotes(_read(str(file.locate())), gym_id)
        )
        # what is imported has registered its own
        found += [module for module in modules if module not in sys.modules][:1]
    return list(dict.fromkeys(found))


def _module(file: PackagePath) -> str:
    """Return what is to be imported so that a file is: its package, or the outermost one."""
    return ".".join(file.parts[:-1]) if file.name == "__init__.py" else Path(file.parts[0]).stem


def _read(file: str) -> str:
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""


def _quotes(text: str, gym_id: str) -> bool:
    return f'"{gym_id}"' in text or f"'{gym_id}'" in text


def _module_of(package: str) -> str | None:
    """Return the module of a package that is called otherwise by pip; None if there is none."""
    wanted = _normal(package)
    for module, dists in importlib.metadata.packages_distributions().items():
        if wanted in map(_normal, dists) and module != package:
            return module
    return None


def _name(dist: Distribution) -> str:
    return str(dist.metadata["Name"] or "")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
