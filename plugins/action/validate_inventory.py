# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Check the inventory as a whole; documented with the module of the same name."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator
from ansible.module_utils.common.yaml import yaml_load
from ansible.plugins.action import ActionBase
from ansible_collections.turnkey.hpc.plugins.module_utils._validate import (
    Inventory,
    Roles,
    Setting,
    find_problems,
    render,
)

ROLES_DIR = Path(__file__).resolve().parents[2] / "roles"
ADDRESS_VARIABLES = ("ansible_host", "ansible_ssh_host")


def check_type(name: str, value: Any, option: Mapping[str, Any]) -> list[str]:
    """Return why ``value`` doesn't fit the option of the argument spec."""
    validated = ArgumentSpecValidator({name: dict(option)}).validate({name: value})
    return [str(message) for message in validated.error_messages]


class SettingsCollector:
    """Gather the values of variables over hosts. Equal values are kept once, since most come from groups."""

    def __init__(self) -> None:
        self._found: dict[str, dict[Any, tuple[Any, list[str]]]] = {}

    def add(self, host: str, name: str, raw: Any) -> None:
        """Note that ``host`` has ``raw``, a value before templating, for ``name``."""
        # A group's value is the same object for all of its hosts; comparing contents would cost much more.
        # The object is kept, so its id isn't used again.
        key = (type(raw), raw) if isinstance(raw, (str, int, float)) else id(raw)
        self._found.setdefault(name, {}).setdefault(key, (raw, []))[1].append(host)

    def values(self) -> Iterable[tuple[str, Any, list[str]]]:
        """Return name, value before templating, and hosts."""
        for name, by_key in self._found.items():
            for raw, hosts in by_key.values():
                yield name, raw, hosts


class ActionModule(ActionBase):
    """Read the variables of all hosts once, and fail with one report if anything is wrong."""

    _supports_check_mode = True
    _requires_connection = False
    TRANSFERS_FILES = False

    def run(self, tmp: Any = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Fail with the report, or return quietly."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        self.validate_argument_spec({})
        problems = find_problems(*self._read(task_vars or {}), check_type)
        if problems:
            report = render(problems)
            # As the task's message it would be shown twice, and in JSON on one line.
            self._display.display(f"\n{report}\n", stderr=True)
            raise AnsibleActionFail(report.partition("\n")[0])
        result["changed"] = False
        return result

    def _read(self, task_vars: dict[str, Any]) -> tuple[Inventory, Roles]:
        """Return what the inventory says, and what the roles accept."""
        roles = Roles.from_specs(
            {
                path.parts[-3]: yaml_load(path.read_bytes())
                for path in sorted(ROLES_DIR.glob("*/meta/argument_specs.yml"))
            }
        )
        defaults: dict[str, Any] = {}
        for path in sorted(ROLES_DIR.glob("*/defaults/main.yml")):
            defaults.update(self._loader.load_from_file(str(path), trusted_as_template=True) or {})
        # Values may refer to defaults of roles and to what plays set for all hosts, which hostvars don't have.
        shared = {**defaults, **{name: task_vars[name] for name in roles.options if name in task_vars}}
        hostvars = task_vars["hostvars"]
        collector = SettingsCollector()
        names: set[str] = set()
        addresses: dict[str, str] = {}
        extra: list[str] = []
        for host in task_vars["groups"]["all"]:
            own = hostvars.raw_get(host)
            names.update(own)
            for name in own:
                if name.startswith(roles.prefixes):
                    collector.add(host, name, own[name])
            addresses[host] = self._address(own, shared, hostvars)
        settings = [
            self._evaluate(name, raw, hosts, shared, hostvars)
            for name, raw, hosts in collector.values()
            if "ansible_facts" not in str(raw)  # can't be known before facts are gathered
        ]
        for setting in settings:
            if setting.name == "cluster_extra_variables" and isinstance(setting.value, list):
                extra += [str(name) for name in setting.value]
        groups = {name: list(hosts) for name, hosts in task_vars["groups"].items()}
        return Inventory(settings, addresses, groups, names, extra), roles

    def _template(self, value: Any, own: Mapping[str, Any], shared: Mapping[str, Any], hostvars: Any) -> Any:
        if not self._templar.is_template(value):
            return value
        variables = {**shared, **own, "hostvars": hostvars}
        return self._templar.copy_with_new_env(available_variables=variables).template(value)

    def _evaluate(self, name: str, raw: Any, hosts: list[str], shared: Mapping[str, Any], hostvars: Any) -> Setting:
        """Return the setting with its value for the first of ``hosts``."""
        try:
            return Setting(name, self._template(raw, hostvars.raw_get(hosts[0]), shared, hostvars), hosts)
        except AnsibleError as error:
            return Setting(name, None, hosts, error=" ".join(str(error).split())[:300])

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


def _is_address(text: str) -> bool:
    try:
        ipaddress.IPv4Address(text)
    except ValueError:
        return False
    return True
