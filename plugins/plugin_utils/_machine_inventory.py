# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Inventories of machines that a provider made: the configuration, the cache, and hosts, groups and variables."""

from __future__ import annotations

import gc
import hashlib
import json
import re
import shlex
from abc import abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import tomllib
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.template import trust_as_template
from ansible_collections.turnkey.hpc.plugins.module_utils._old_layout import CANONICAL_GROUPS
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import (
    Machine,
    check_cluster_name,
    natural_key,
)

__all__ = ["CANONICAL_GROUPS", "MachineInventory", "Row", "TomlLoader", "build_hosts", "row_of", "shared_variables"]

Row = dict[str, Any]


def row_of(machine: Machine) -> Row:
    """Return what is kept of a machine. Pure."""
    return {
        "name": machine.name,
        "address": machine.address,
        "set": machine.set_name,
        "groups": list(machine.groups),
        "running": machine.running,
    }


def build_hosts(rows: list[Row], include_stopped: bool) -> list[Row]:
    """Return the rows that become hosts, in the order of their names. Pure."""
    hosts = [row for row in rows if row["running"] or include_stopped]
    return sorted(hosts, key=lambda row: natural_key(row["name"]))


def shared_variables(cluster: str, access_dir: Path, login_user: str = "") -> dict[str, str]:
    """Return the variables of the group ``all``. Pure."""
    digest = hashlib.sha256(str(access_dir).encode()).hexdigest()[:8]
    return {
        "cluster_name": cluster,
        "cluster_secrets_dir": str(access_dir.parent),
        **({"ansible_user": login_user} if login_user else {}),
        "ansible_ssh_common_args": f"-F {shlex.quote(str(access_dir / 'ssh_config'))}",
        # Clusters with the same host names must not share connections; sockets allow 108 bytes of path.
        "ansible_control_path_dir": f"~/.ansible/cp/{cluster}-{digest}",
    }


class TomlLoader:
    """Stands in for Ansible's loader, which reads no TOML, while the configuration is read."""

    def load_from_file(self, path: str, **_options: Any) -> Any:
        """Return the content of a TOML file, as much trusted as that of a YAML file."""
        try:
            return _trusted(tomllib.loads(Path(path).read_text(encoding="utf-8")))
        except ValueError as error:
            raise AnsibleParserError(f"{path} is not valid TOML: {error}") from None


def _trusted(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _trusted(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_trusted(item) for item in value]
    return trust_as_template(value) if isinstance(value, str) else value


class MachineInventory(BaseInventoryPlugin, Constructable, Cacheable):
    """Lists one cluster's machines. A plugin says its name, which files are its own, and how the machines are found."""

    SUFFIX: ClassVar[str]
    """What names of files end in, before ``.yml``."""
    LOGIN_USER: ClassVar[str] = ""
    """The user that the machines let in, empty to leave it to the ``ssh_config``."""

    @abstractmethod
    def fetch(self, cluster: str) -> list[Row]:
        """Ask the provider: the only input of the plugin. Raises AnsibleParserError."""

    def verify_file(self, path: str) -> bool:
        """Accept YAML whose name ends as it should, and TOML that names this plugin."""
        if not super().verify_file(path):
            return False
        if path.endswith(".toml"):
            ours = rf"""^\s*plugin\s*=\s*["']{re.escape(self.NAME)}["']\s*(#.*)?$"""
            return re.search(ours.encode(), Path(path).read_bytes(), re.MULTILINE) is not None
        return path.endswith((f"{self.SUFFIX}.yml", f"{self.SUFFIX}.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        cluster = self.get_option("cluster_name")
        access_dir = Path(path).absolute().parent / Path(self.get_option("access_dir")).expanduser()
        # Nothing can have an illegal name. The playbooks refuse it in one message; here Ansible would go on with its
        # other plugins, and bury it under their complaints.
        # Nothing of 10,000 rows is garbage yet: looking for it would take a quarter of the time.
        collecting = gc.isenabled()
        gc.disable()
        try:
            rows = [] if check_cluster_name(cluster) else self._rows(path, cluster, cache)
            self._emit(rows, shared_variables(cluster, access_dir, self.LOGIN_USER))
        finally:
            if collecting:
                gc.enable()

    def _read_config_data(self, path: str) -> Any:
        """Read the options from YAML or TOML."""
        loader: Any = self.loader  # type: ignore[has-type]
        self.loader = TomlLoader() if path.endswith(".toml") else loader
        try:
            return super()._read_config_data(path)
        finally:
            self.loader = loader

    def _rows(self, path: str, cluster: str, cache: bool) -> list[Row]:
        """Return the rows from the cache, or fetch and keep them."""
        if not self.get_option("cache"):
            return self.fetch(cluster)
        key = self.get_cache_key(path)
        if cache:
            try:
                kept = self._cache[key]
            except KeyError:
                pass
            else:
                return list(json.loads(kept))
        rows = self.fetch(cluster)
        # One text: Ansible would look into each value of 10,000 rows, when it writes them and when it reads them.
        self._cache[key] = json.dumps(rows)
        return rows

    def _emit(self, rows: list[Row], shared: dict[str, str]) -> None:
        for group in CANONICAL_GROUPS:
            self.inventory.add_group(group)
        for name, value in shared.items():
            self.inventory.set_variable("all", name, value)
        strict = self.get_option("strict")
        constructed = any(self.get_option(name) for name in ("compose", "groups", "keyed_groups"))
        for row in build_hosts(rows, self.get_option("include_stopped")):
            host = row["name"]
            self.inventory.add_host(host)
            self.inventory.set_variable(host, "cluster_address", row["address"])
            for group in row["groups"]:
                self.inventory.add_group(group)
                self.inventory.add_host(host, group=group)
            if not constructed:
                continue
            seen = {f"machine_{name}": value for name, value in row.items()}
            self._set_composite_vars(self.get_option("compose"), seen, host, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), seen, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), seen, host, strict=strict)
