# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the inventory as a whole; documented with the module of the same name."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._validate import Inventory, find_problems, render
from ansible_collections.turnkey.hpc.plugins.module_utils._variable_check import (
    Setting,
    Specs,
    fold_hosts,
    is_free,
    load_roles_by_group,
    load_specs,
)
from ansible_collections.turnkey.hpc.plugins.plugin_utils._encrypted import hide_encrypted

try:
    # Since 2.19 values know their file and line. Where a later Ansible keeps that elsewhere, problems have none.
    from ansible._internal._datatag._tags import Origin
except ImportError:
    Origin = None

TOP = Path(__file__).resolve().parents[2]
ROLES_DIR = TOP / "roles"
ADDRESS_VARIABLES = ("ansible_host", "ansible_ssh_host")
VARIABLE_DIRS = frozenset({"group_vars", "host_vars"})


class Origins:
    """Tells where in the inventory's own files a variable is set."""

    def __init__(self, sources: list[str]) -> None:
        self._sources = [Path(source) for source in sources]
        self._known: dict[str, str] = {}

    def of(self, name: str, value: Any) -> str:
        """Return file and line, or nothing: what plugins, plays and the command line set is in no file of ours."""
        for part in (name, value):
            origin = Origin.get_tag(part) if Origin else None
            if origin and origin.path:
                file = self._file(origin.path)
                return f"{file}:{origin.line_num}" if file and origin.line_num else file
        return ""

    def _file(self, path: str) -> str:
        if path not in self._known:
            known = Path(path)
            ours = not VARIABLE_DIRS.isdisjoint(known.parts) or any(
                source == known or source in known.parents for source in self._sources
            )
            here = known.is_relative_to(Path.cwd())
            self._known[path] = str(known.relative_to(Path.cwd()) if here else known) if ours else ""
        return self._known[path]


class SettingsCollector:
    """Gather the values of variables over hosts. Equal values are kept once, since most come from groups."""

    def __init__(self, origin_of: Callable[[str, Any], str]) -> None:
        self._origin_of = origin_of
        self._found: dict[str, dict[Any, tuple[Any, list[str], str]]] = {}

    def add(self, host: str, name: str, raw: Any) -> None:
        """Note that ``host`` has ``raw``, a value before templating, for ``name``."""
        # A group's value is the same object for all of its hosts; comparing contents would cost much more.
        # The object is kept, so its id isn't used again.
        key = (type(raw), raw) if isinstance(raw, (str, int, float)) else id(raw)
        found = self._found.setdefault(name, {})
        if key in found:
            found[key][1].append(host)
        else:
            found[key] = (hide_encrypted(raw), [host], self._origin_of(name, raw))

    def values(self) -> Iterator[tuple[str, Any, list[str], str]]:
        """Return name, value before templating, hosts, and file and line of the first."""
        for name, by_key in self._found.items():
            for raw, hosts, origin in by_key.values():
                yield name, raw, hosts, origin


def is_foreign(name: str, origin: str, specs: Specs) -> bool:
    """Return whether a variable is none of ours: an inventory plugin, a play or a fact of a machine made it."""
    return name.startswith("__") or not (origin or name.startswith(specs.prefixes) or name in specs.names())


class ActionModule(ActionBase):
    """Read the variables of all hosts once, and fail with one report if anything is wrong."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with the report, or return quietly."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        problems = find_problems(*self._read(task_vars or {}))
        if problems:
            report = render(problems)
            # As the task's message it would be shown twice, and in JSON on one line.
            self._display.display(f"\n{report}\n", stderr=True)
            raise AnsibleActionFail(report.partition("\n")[0])
        result["changed"] = False
        return result

    def _read(self, task_vars: dict[str, Any]) -> tuple[Inventory, Specs, Mapping[str, tuple[str, ...]]]:
        """Return what the inventory says, what the roles accept, and where they run."""
        specs = load_specs(ROLES_DIR, yaml_load)
        defaults: dict[str, Any] = {}
        for path in sorted(ROLES_DIR.glob("*/defaults/main.yml")):
            defaults.update(self._loader.load_from_file(str(path), trusted_as_template=True) or {})
        # Values may refer to defaults of roles and to what plays set for all hosts, which hostvars don't have.
        shared = {**defaults, **{name: task_vars[name] for name in specs.options if name in task_vars}}
        hostvars = task_vars["hostvars"]
        collector = SettingsCollector(Origins(task_vars.get("ansible_inventory_sources") or []).of)
        addresses: dict[str, str] = {}
        free: dict[str, bool] = {}
        for host in task_vars["groups"]["all"]:
            own = hostvars.raw_get(host)
            for name in own:
                if name not in free:
                    free[name] = is_free(name)
                if not free[name]:
                    collector.add(host, name, own[name])
            addresses[host] = self._address(own, shared, hostvars)
        settings = [
            self._evaluate(specs, Setting(name, raw, hosts, origin, _where(hosts, len(addresses))), shared, hostvars)
            for name, raw, hosts, origin in collector.values()
            if not is_foreign(name, origin, specs)
        ]
        groups = {name: list(hosts) for name, hosts in task_vars["groups"].items()}
        return Inventory(settings, addresses, groups), specs, load_roles_by_group(TOP / "playbooks", yaml_load)

    def _template(self, value: Any, own: Mapping[str, Any], shared: Mapping[str, Any], hostvars: Any) -> Any:
        if not self._templar.is_template(value):
            return value
        variables = {**shared, **own, "hostvars": hostvars}
        return self._templar.copy_with_new_env(available_variables=variables).template(value)

    def _evaluate(self, specs: Specs, setting: Setting, shared: Mapping[str, Any], hostvars: Any) -> Setting:
        """Return the setting with its value for the first of its hosts. What needs facts can't be known yet."""
        if specs.option(setting.name) is None or "ansible_facts" in str(setting.value):
            return setting
        try:
            own = hostvars.raw_get(next(iter(setting.hosts)))
            return setting._replace(value=self._template(setting.value, own, shared, hostvars))
        except AnsibleError as error:
            return setting._replace(value=None, error=" ".join(str(error).split())[:300])

    def _address(self, own: Mapping[str, Any], shared: Mapping[str, Any], hostvars: Any) -> str:
        """Return the address that the host will have in the cluster, or nothing."""
        for name in ("cluster_address", *ADDRESS_VARIABLES):
            if name not in own:
                continue
            try:
                value = str(self._template(own[name], own, shared, hostvars) or "")
            except AnsibleError:
                continue  # a template that fails is reported as such
            if name == "cluster_address" or _is_address(value):
                return value
        return ""


def _where(hosts: list[str], everywhere: int) -> str:
    if len(hosts) == everywhere:
        return ""
    return f"host {hosts[0]}" if len(hosts) == 1 else f"hosts {fold_hosts(hosts)}"


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
