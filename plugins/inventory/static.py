# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: static
short_description: Machines listed in a file in INI, TOML or YAML
version_added: "0.1.0"
description:
  - Reads a file that lists hosts, groups and variables. The content says which syntax it is in, not the name, so that
    a file C(inv.toml) may be in INI syntax.
  - What P(ansible.builtin.ini#inventory), P(ansible.builtin.yaml#inventory) and P(ansible.builtin.toml#inventory) read
    gives the same hosts, groups and variables here.
  - Host ranges may also be written as in Slurm, C(node[01-16,20]).
  - Lines that can't be read are reported all at once, each with its line and a remedy.
  - Variables are checked against the argument specs of the roles, see O(check).
  - Groups and variables of the old layout (C(driver), C(worker), C(http_port), ...) become those of this collection,
    with a note for each.
  - The canonical groups are always defined, so a play for an empty group is no error.
author: The turnkey.hpc founders (@turnkey-hpc)
notes:
  - Enable it in place of P(ansible.builtin.ini#inventory), P(ansible.builtin.yaml#inventory) and
    P(ansible.builtin.toml#inventory). Behind it they would read a file that it has found wrong.
  - Files with a top-level key C(plugin), or whose names end in C(docker.yml) or C(docker.yaml), and programs are left
    to other plugins.
options:
  check:
    description:
      - Whether a variable that no role knows, or with a value that doesn't fit, is an error.
      - Variables named C(site_*) and those listed in C(cluster_extra_variables) are free.
    type: bool
    default: true
    env:
      - name: TURNKEY_INVENTORY_CHECK
"""

EXAMPLES = r"""
# inv.toml, in INI syntax
# [controller]
# head ansible_host=10.20.0.1
#
# [compute]
# node[01-16]
#
# [compute:vars]
# ansible_user=admin

# The same in YAML
controller:
  hosts:
    head:
      ansible_host: 10.20.0.1
compute:
  hosts:
    node[01-16]:
  vars:
    ansible_user: admin
"""

import gc
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible import constants as C
from ansible.errors import AnsibleError, AnsibleParserError
from ansible.inventory.group import to_safe_group_name
from ansible.inventory.host import Host
from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.inventory import BaseFileInventoryPlugin
from ansible.template import trust_as_template
from ansible.utils.path import basedir
from ansible.utils.vars import validate_variable_name
from ansible_collections.turnkey.hpc.plugins.module_utils._entry import Entry
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.ini import parse_ini
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.mapping import LineOf, parse_mapping
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.steps import (
    AddChild,
    AddGroup,
    AddHosts,
    Fault,
    Parsed,
    SetVariable,
    entries_of,
    fault_of,
    map_steps,
    members_of,
    render_faults,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._inventory.syntax import (
    is_plugin_config,
    read_toml,
    syntax_of,
    toml_lines,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._old_layout import CANONICAL_GROUPS
from ansible_collections.turnkey.hpc.plugins.module_utils._variable_check import (
    CONNECTION,
    check_variables,
    load_roles_by_group,
    load_specs,
)
from ansible_collections.turnkey.hpc.plugins.plugin_utils._encrypted import hide_encrypted

try:
    # Since 2.19 values know their file and line. Where a later Ansible keeps that elsewhere, ours don't.
    from ansible._internal._datatag._tags import Origin, TrustedAsTemplate
    from ansible.module_utils._internal._datatag import AnsibleTagHelper
except ImportError:
    Origin = None

TOP = Path(__file__).resolve().parents[2]
VAULT_MARK = b"$ANSIBLE_VAULT"
SAMPLE_BYTES = 65536
SIMPLE = frozenset({str, int, float, bool, type(None)})
PLUGIN_FAULT = Fault(1, "this is the configuration of a plugin", "enable that plugin before this one")
PROGRAMS = (b"#!", b"\x7fELF")


def line_of_tag(value: Any) -> int:
    """Return the line that Ansible's YAML loader noted on ``value``, or 1."""
    origin = Origin.get_tag(value) if Origin else None
    return (origin and origin.line_num) or 1


def shown(path: str) -> str:
    """Return ``path`` as people would write it here."""
    relative = os.path.relpath(path)
    return path if relative.startswith("..") else relative


def _without_secrets(entry: Entry) -> Entry:
    """Return the entry without encrypted values, which nobody can judge before they are decrypted."""
    if type(entry.value) in SIMPLE:
        return entry
    return entry._replace(value=hide_encrypted(entry.value))


class InventoryModule(BaseFileInventoryPlugin):
    """Reads one file."""

    NAME = "turnkey.hpc.static"

    def verify_file(self, path: str) -> bool:
        """Accept every file that isn't evidently somebody else's."""
        if not super().verify_file(path) or path.endswith(("docker.yml", "docker.yaml")) or not Path(path).is_file():
            return False
        with Path(path).open("rb") as file:
            sample = file.read(SAMPLE_BYTES)
        if sample.startswith(VAULT_MARK):
            return True
        # Some file systems make every file executable, so that the mode says nothing.
        return not (sample.startswith(PROGRAMS) or is_plugin_config(sample.decode(errors="replace")))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory, or raise one error with all that is wrong."""
        super().parse(inventory, loader, path, cache)
        self.set_options()
        # Many small objects come and stay, and looking for circles among them takes a third of the time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            self._parse(inventory, path)
        finally:
            if collecting:
                gc.enable()

    def _parse(self, inventory: Any, path: str) -> None:
        check = self.get_option("check")
        parsed, syntax = self._read(path)
        parsed, notes = map_steps(parsed, shown(path), variables=check)
        for line, text in parsed.warnings:
            self.display.warning(f"{shown(path)}:{line}: {text}")
        for note in notes:
            # Not on the standard output: that of ansible-inventory is read by programs.
            self.display.display(f"note: {note}", stderr=True)
        faults = list(parsed.faults)
        if check:
            faults += self._check(parsed, path)
        if not parsed.faults:
            # The YAML loader marks what it gives with its place, and as a template unless it is !unsafe.
            faults += Filler(inventory, path if syntax != "yaml" else "").fill(parsed)
        if faults:
            lines = render_faults(shown(path), faults)
            noun = "problem" if len(lines) == 1 else "problems"
            message = f"The inventory {shown(path)} has {len(lines)} {noun}."
            raise AnsibleParserError(message, help_text="\n".join(lines))

    def _check(self, parsed: Parsed, path: str) -> Iterator[Fault]:
        """Yield what is wrong with the variables of the file."""
        groups = members_of(parsed.steps)
        for name, group in self.inventory.groups.items():
            if group.hosts:
                groups[name] = list(dict.fromkeys([*groups.get(name, ()), *(host.name for host in group.get_hosts())]))
        groups["all"] = list(dict.fromkeys(host for hosts in groups.values() for host in hosts))
        specs = load_specs(TOP / "roles", yaml_load)
        roles = load_roles_by_group(TOP / "playbooks", yaml_load)
        entries = (_without_secrets(entry) for entry in entries_of(parsed.steps, shown(path), CONNECTION))
        for problem in check_variables(entries, groups, specs, roles):
            # What is missing here may be in group_vars: that is for validate_inventory to say.
            if problem.origin:
                yield fault_of(problem)

    def _read(self, path: str) -> tuple[Parsed, str]:
        """Return what the file says, and its syntax. The only input of this plugin."""
        # Latin-1 gives back each byte as it is: comments may be in any encoding.
        data = self.loader.get_text_file_contents(path, encoding="latin-1").encode("latin-1")
        if b"\0" in data:
            line = data[: data.index(b"\0")].count(b"\n") + 1
            fault = Fault(line, "this is no text in UTF-8: it has a zero byte", "save it as UTF-8")
            return Parsed([], [fault], []), "ini"
        text = data.decode("utf-8-sig", errors="surrogateescape")
        syntax = syntax_of(text)
        if syntax == "ini":
            lines = text.splitlines()
            return parse_ini(lines, self.inventory.groups, self._expand_hostpattern, to_safe_group_name), syntax
        content, line_of = self._load_toml(text) if syntax == "toml" else self._load_yaml(path)
        if isinstance(content, Fault):
            return Parsed([], [content], []), syntax
        return parse_mapping(content, syntax == "yaml", line_of, self._expand_hostpattern), syntax

    def _load_toml(self, text: str) -> tuple[Any, LineOf]:
        try:
            content = read_toml(text)
        except ValueError as error:
            what, _sep, place = str(error).partition(" (at ")
            found = re.match(r"line ([0-9]+)", place)
            line = int(found[1]) if found else max(1, len(text.splitlines()))
            return Fault(line, f"this is no valid TOML: {what}", "correct the syntax at this place"), lambda path: line
        except RecursionError:
            return Fault(1, "tables or lists are too deep inside of each other", "make it flatter"), lambda path: 1
        if "plugin" in content:
            return PLUGIN_FAULT, lambda path: 1
        lines = toml_lines(text)

        def line_of(path: tuple[Any, ...]) -> int:
            while path and path not in lines:
                path = path[:-1]
            return lines.get(path, 1)

        return content, line_of

    def _load_yaml(self, path: str) -> tuple[Any, LineOf]:
        def line_of(keys: tuple[Any, ...]) -> int:
            return line_of_tag(keys[-1]) if keys else 1

        try:
            content = self.loader.load_from_file(path, cache="none", trusted_as_template=True)
        except (AnsibleError, ValueError, RecursionError) as error:
            what = " ".join(str(getattr(error, "message", error) or type(error).__name__).split())
            line = getattr(getattr(error, "obj", None), "line_num", None) or 1
            return Fault(line, f"this is no valid YAML: {what}", "correct the syntax here or above"), line_of
        if not isinstance(content, Mapping) or not content:
            what = "this is no inventory: it has no groups" if not content else f"this is a {type(content).__name__}"
            return Fault(1, what, "write groups, as in 'compute: {hosts: {node1: }}'"), line_of
        if content.get("plugin"):
            return PLUGIN_FAULT, line_of
        return content, line_of


class Filler:
    """Carries out steps.

    The methods of an inventory that add one host and set one variable cost three times as much as reading the line,
    since they look at the file system for each host. Where nothing that they check for can be, this works on its hosts
    directly.
    """

    def __init__(self, inventory: Any, path: str) -> None:
        self.inventory = inventory
        self.path = path
        self.hosts: dict[str, Any] = inventory.hosts
        self.groups: dict[str, Any] = inventory.groups
        source = inventory.current_source
        self.source = {"inventory_file": source, "inventory_dir": basedir(source) if source else None}
        self.faults: list[Fault] = []
        # Ansible may change the names of groups.
        self.renamed: dict[str, str] = {}
        self.checked: dict[Any, bool] = {}

    def fill(self, parsed: Parsed) -> list[Fault]:
        """Carry out all steps, and return what Ansible refused. The steps are used up, since they take much memory."""
        steps = parsed.steps
        steps.reverse()
        while steps:
            step = steps.pop()
            try:
                if isinstance(step, AddHosts):
                    self._add_hosts(step)
                elif isinstance(step, SetVariable):
                    name, value = step.name, step.value
                    if self.path:
                        mark = Marker(self.path, step.line)
                        name, value = mark.place(name), mark(value)
                    self.inventory.set_variable(self._group(step.group), name, value)
                elif isinstance(step, AddGroup):
                    actual = self.inventory.add_group(step.name)
                    if actual != step.name:
                        self.renamed[step.name] = actual
                elif isinstance(step, AddChild):
                    self.inventory.add_child(self._group(step.group), self._group(step.child))
            except Exception as error:  # noqa: BLE001 - Ansible raises many kinds, among them Exception itself
                what = " ".join(str(getattr(error, "message", error)).split())
                self.faults.append(Fault(step.line, f"Ansible refuses this: {what}", "correct the line"))
        for group in CANONICAL_GROUPS:
            # An empty group would hide a host of its name from patterns.
            if group not in self.hosts:
                self.inventory.add_group(group)
        return self.faults

    def _group(self, name: str) -> str:
        return self.renamed.get(name, name)

    def _add_hosts(self, step: AddHosts) -> None:
        group = self.groups[self._group(step.group)] if step.group else None
        variables = step.variables
        if variables and self.path:
            mark = Marker(self.path, step.line)
            variables = {name: mark(value) for name, value in variables.items()}
        plain = True
        for name, value in variables.items():
            if not self._is_plain(name) or isinstance(value, Mapping):
                plain = False
        for name in step.names:
            host = self.hosts.get(name)
            if name in self.groups or name in C.LOCALHOST or not (self.path and name):
                # Ansible takes the group for the host where both have one name. Names from YAML bear marks.
                self.inventory.add_host(name, group=group.name if group else None, port=step.port)
                for key, value in variables.items():
                    self.inventory.set_variable(name, key, value)
                continue
            if host is None:
                host = self.hosts[name] = Host(name, step.port)
                host.vars.update(self.source)
            if group is not None:
                group.add_host(host)
            if plain:
                host.vars.update(variables)
            else:
                for key, value in variables.items():
                    host.set_variable(key, value)

    def _is_plain(self, name: Any) -> bool:
        """Whether Ansible has nothing to say about the name of a variable."""
        known = self.checked.get(name)
        if known is None:
            try:
                validate_variable_name(name)
            except AnsibleError:
                known = False
            else:
                known = isinstance(name, str)
            self.checked[name] = known
        return known


class Marker:
    """Marks the values of one line with their place, and as what may be a template: it is the user's own file."""

    __slots__ = ("origin", "path", "tags")

    def __init__(self, path: str, line: int) -> None:
        self.path = path
        if Origin:
            self.origin = Origin(path=path, line_num=line)
            self.tags = (self.origin, TrustedAsTemplate())
        else:
            self.origin = None

    def place(self, value: Any) -> Any:
        """Return ``value`` with its place only."""
        return self.origin.tag(value) if self.origin and isinstance(value, (str, int, float, list, dict)) else value

    def __call__(self, value: Any) -> Any:
        """Return ``value`` with its marks, at any depth."""
        if isinstance(value, str):
            return AnsibleTagHelper.tag(value, self.tags) if self.origin else trust_as_template(value)
        if isinstance(value, list):
            return self.place([self(item) for item in value])
        if isinstance(value, dict):
            return self.place({self.place(key): self(item) for key, item in value.items()})
        return self.place(value)
