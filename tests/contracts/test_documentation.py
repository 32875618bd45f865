# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Every plugin documents itself, and has unit tests."""

from __future__ import annotations

import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from house import TOP, files, name_of, report, roles, specs, text

MODULES = files("plugins/modules/", suffixes=(".py",))
KINDS = {
    "modules": "module",
    "filter": "filter",
    "inventory": "inventory",
    "lookup": "lookup",
    "callback": "callback",
    "connection": "connection",
}


@functools.cache
def printed() -> dict[str, Any]:
    """Return what ansible-doc says about the whole collection, in one call."""
    command = [Path(sys.executable).with_name("ansible-doc"), "--metadata-dump", "--no-fail-on-errors", "turnkey.hpc"]
    return json.loads(subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout)["all"]


def test_every_module_says_how_it_does_in_check_and_diff_mode_and_whether_it_is_idempotent() -> None:
    problems = []
    for path in MODULES:
        attributes = printed()["module"][f"turnkey.hpc.{path.stem}"].get("doc", {}).get("attributes", {})
        problems += [
            f"{name_of(path)}: no attribute {name}"
            for name in ("check_mode", "diff_mode", "idempotent")
            if name not in attributes
        ]
    report(problems)


def test_ansible_doc_prints_every_plugin() -> None:
    problems = []
    for path in files("plugins/", suffixes=(".py",)):
        kind = KINDS.get(path.relative_to(TOP).parts[1])
        if kind and not path.name.startswith("_"):
            found = printed().get(kind, {}).get(f"turnkey.hpc.{path.stem}", {})
            if "doc" not in found:
                problems.append(f"{name_of(path)}: {found.get('error', 'ansible-doc does not list it')}")
    report(problems)


def test_ansible_doc_prints_every_role_with_every_entry_point() -> None:
    problems = []
    for role in roles():
        found = printed().get("role", {}).get(f"turnkey.hpc.{role.name}", {})
        missing = set(specs(role)) - set(found.get("entry_points", {})) or (
            set() if found.get("entry_points") else {"main"}
        )
        problems += [
            f"{name_of(role)}/meta/argument_specs.yml: ansible-doc prints no {entry}" for entry in sorted(missing)
        ]
    report(problems)


def test_every_plugin_has_examples() -> None:
    problems = []
    for path in files("plugins/", suffixes=(".py",)):
        if KINDS.get(path.relative_to(TOP).parts[1]) and "EXAMPLES = " not in text(path):
            problems.append(f"{name_of(path)}: no EXAMPLES")
    report(problems)


def test_every_action_plugin_has_a_module_of_its_name_that_documents_it() -> None:
    names = {path.stem for path in MODULES}
    report(
        [
            f"{name_of(path)}: no plugins/modules/{path.name}"
            for path in files("plugins/action/", suffixes=(".py",))
            if path.stem not in names
        ]
    )


def test_every_plugin_has_unit_tests_in_the_same_place() -> None:
    tests = {path.relative_to(TOP / "tests/unit").with_suffix("") for path in files("tests/unit/", suffixes=(".py",))}
    problems = []
    for path in files("plugins/", suffixes=(".py",)):
        place = path.relative_to(TOP)
        if place.parts[1] == "doc_fragments" or path.name == "__init__.py":
            continue
        if place.parts[1] == "modules" and "def main" not in text(path):
            continue  # the documentation of an action
        accepted = {place.with_name(f"test_{stem}") for stem in (path.stem, path.stem.lstrip("_"))}
        accepted |= {name.parent.with_name(name.parent.name.lstrip("_")) / name.name for name in accepted}
        if not accepted & tests:
            problems.append(f"{place}: no tests/unit/{place.with_name('test_' + path.stem.lstrip('_'))}.py")
    report(problems)


def test_every_python_file_says_its_licence() -> None:
    paths = [path for path in files(suffixes=(".py",)) if path.stat().st_size]
    report(
        [
            f"{name_of(path)}:1: no SPDX line"
            for path in paths
            if "SPDX-License-Identifier: GPL-3.0-or-later" not in text(path)[:500]
        ]
    )
