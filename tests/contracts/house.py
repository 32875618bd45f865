# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the contract tests share: the tree as git sees it, roles, and tasks with the lines they stand on."""

from __future__ import annotations

import functools
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]

# They look at nodes or build elsewhere, and leave nothing on a node of the cluster: no install, configure or reset.
CHANGE_NO_NODE = frozenset({"base_image", "cluster", "preflight", "verify"})

# Variables that Ansible itself sets, which are not facts.
MAGIC = re.compile(
    r"ansible_(facts|control_path_dir|host|port|user|connection|password|private_key_file|python_interpreter"
    r"|playbook_python|check_mode|diff_mode|verbosity|inventory_sources|limit|version|forks|config_file|search_path"
    r"|collections?(_name|s)?|role_name|role_names|parent_role_\w+|dependent_role_names|play_\w+|run_tags|skip_tags"
    r"|loop|loop_var|index_var|failed_\w+|delegated_vars|become\w*|ssh_\w+|docker_\w+|remote_tmp|async_dir|timeout"
    r"|shell_\w+|managed)$"
)


class LineLoader(yaml.SafeLoader):
    """Loads YAML with `__line__` in every mapping."""


def _mapping(loader: LineLoader, node: yaml.MappingNode) -> dict[str, Any]:
    loader.flatten_mapping(node)
    result = dict(loader.construct_pairs(node, deep=True))
    result["__line__"] = node.start_mark.line + 1
    return result


LineLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
LineLoader.add_multi_constructor("!", lambda loader, suffix, node: getattr(node, "value", None))


def name_of(path: Path) -> str:
    """Return the path as seen from the top of the tree."""
    return str(path.relative_to(TOP))


def report(problems: list[str]) -> None:
    """Fail with one line a problem."""
    if problems:
        pytest.fail("\n".join(problems), pytrace=False)


@functools.cache
def tree() -> tuple[Path, ...]:
    """Return all files that git would commit."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--deduplicate"]
    listed = subprocess.run(command, cwd=TOP, check=True, capture_output=True, text=True).stdout
    return tuple(path for path in (TOP / name for name in sorted(listed.split("\0")) if name) if path.is_file())


def files(*prefixes: str, suffixes: tuple[str, ...] = ()) -> list[Path]:
    """Return the tree's files below one of the prefixes, with one of the suffixes."""
    found = [path for path in tree() if not prefixes or name_of(path).startswith(prefixes)]
    return [path for path in found if not suffixes or path.suffix in suffixes]


def text(path: Path) -> str:
    """Return a file's text, or nothing for a binary file."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return ""


def code_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line numbers and lines, without lines that are comments as a whole."""
    for number, line in enumerate(text(path).splitlines(), start=1):
        if not line.lstrip().startswith(("#", "{#")):
            yield number, line


def grep(paths: list[Path], pattern: str) -> list[str]:
    """Return `file:line: text` for every code line that the pattern is found in."""
    wanted = re.compile(pattern)
    return [
        f"{name_of(path)}:{number}: {line.strip()}"
        for path in paths
        for number, line in code_lines(path)
        if wanted.search(line)
    ]


def plain(path: Path) -> Any:
    """Return a YAML file's content."""
    return yaml.load(text(path), Loader=_Tolerant)


class _Tolerant(yaml.SafeLoader):
    """Takes tags such as !vault for their value."""


_Tolerant.add_multi_constructor("!", lambda loader, suffix, node: getattr(node, "value", None))


@functools.cache
def roles() -> tuple[Path, ...]:
    """Return the directories of the roles."""
    return tuple(sorted({TOP / "roles" / path.relative_to(TOP).parts[1] for path in files("roles/")}))


@dataclass(frozen=True)
class Task:
    """A task, block or handler, and where it stands."""

    role: str
    path: Path
    body: dict[str, Any]

    @property
    def where(self) -> str:
        """Return `file:line`."""
        return f"{name_of(self.path)}:{self.body['__line__']}"

    @property
    def name(self) -> str:
        """Return the task's name."""
        return str(self.body.get("name", ""))


def _flat(items: Any) -> Iterator[dict[str, Any]]:
    for item in items or []:
        if isinstance(item, dict):
            yield item
            for part in ("block", "rescue", "always"):
                yield from _flat(item.get(part))


@functools.cache
def tasks(kind: str = "tasks") -> tuple[Task, ...]:
    """Return all tasks (or `handlers`) of all roles, those inside blocks too."""
    return tuple(
        Task(role.name, path, body)
        for role in roles()
        for path in files(f"roles/{role.name}/{kind}/", suffixes=(".yml",))
        for body in _flat(yaml.load(text(path), Loader=LineLoader))
    )


def specs(role: Path) -> dict[str, Any]:
    """Return the argument specs of a role."""
    path = role / "meta/argument_specs.yml"
    return (plain(path) or {}).get("argument_specs", {}) if path.is_file() else {}


def interface(role: Path) -> dict[str, Any]:
    """Return the options of the role as a whole: those of main, or of the only spec of a role without tasks."""
    found = specs(role)
    spec = found.get("main") or (next(iter(found.values())) if len(found) == 1 else {})
    return spec.get("options") or {}


def defaults(role: Path) -> dict[str, Any]:
    """Return the defaults of a role."""
    path = role / "defaults/main.yml"
    return plain(path) or {} if path.is_file() else {}
