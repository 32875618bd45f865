# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One executable file of Python from modules of the collection: readable, and nothing is to be installed for it.

The sources are in it as they are. What is not imported when it runs is not compiled either.
"""

from __future__ import annotations

import ast
from pathlib import Path

from ._errors import HpcError

__all__ = ["program"]

ROOT = "ansible_collections.turnkey.hpc.plugins.module_utils"
HERE = Path(__file__).parent

STUB = '''#!/usr/bin/python3 -I
# Made by turnkey.hpc from {count} modules of the collection. Changes made here are lost.
# Licence: GPL-3.0-or-later
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec

SOURCES = {sources}
PACKAGES = {packages}


class Sources(MetaPathFinder, Loader):
    """Imports modules from SOURCES."""

    def find_spec(self, name, path=None, target=None):
        if name in PACKAGES or name in SOURCES:
            return ModuleSpec(name, self, is_package=name in PACKAGES)
        return None

    def exec_module(self, module):
        name = module.__spec__.name
        if name in SOURCES:
            exec(compile(SOURCES[name], "<" + name + ">", "exec", dont_inherit=True), module.__dict__)


sys.meta_path.insert(0, Sources())

from {entry} import main  # noqa: E402

sys.exit(main(sys.argv))
'''


def _imports(name: str, source: str) -> set[str]:
    """Return the modules of the collection that a module names in its imports, wherever they stand."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = name.split(".")[: -node.level]
                base = ".".join([*above, base]) if base else ".".join(above)
            if base.startswith(ROOT):
                found.add(base)
                found.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names if alias.name.startswith(ROOT))
    return found


def _path(name: str) -> Path:
    return HERE.joinpath(*name[len(ROOT) + 1 :].split(".")).with_suffix(".py")


def program(entry: str) -> str:
    """Return the text of a program that runs ``main(argv)`` of a module, such as ``_elastic.main``."""
    start = f"{ROOT}.{entry}"
    if not _path(start).is_file():
        raise HpcError(f"The collection has no module {entry}.")
    sources: dict[str, str] = {}
    left = [start]
    while left:
        name = left.pop()
        if name in sources or not _path(name).is_file():
            continue
        sources[name] = _path(name).read_text(encoding="utf-8")
        left += _imports(name, sources[name])
    packages = {name.rsplit(".", depth)[0] for name in sources for depth in range(1, name.count(".") + 1)}
    listed = "".join(f"    {name!r}: {sources[name]!r},\n" for name in sorted(sources))
    return STUB.format(
        count=len(sources),
        sources="{\n" + listed + "}",
        packages="frozenset(" + repr(sorted(packages)) + ")",
        entry=start,
    )
