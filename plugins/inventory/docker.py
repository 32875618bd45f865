# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: docker
short_description: The machines of a cluster that the Docker provider made
version_added: "0.1.0"
description:
  - Lists the containers that M(turnkey.hpc.cluster_machines) made for one cluster, with the groups from their labels.
  - The canonical groups are always defined, so a play for an empty group is no error.
  - Hosts are reached with the C(ssh_config) that M(turnkey.hpc.cluster_machines) wrote, through the bastion.
  - A host has the variables C(cluster_address) and C(ansible_host) only; what hosts share is on the group C(all).
  - The file is called C(*docker.yml), or has any name that ends in C(.toml) and is TOML with the line
    C(plugin = "turnkey.hpc.docker").
author: The turnkey.hpc founders (@turnkey-hpc)
requirements:
  - docker (Python package)
extends_documentation_fragment:
  - ansible.builtin.constructed
  - ansible.builtin.inventory_cache
notes:
  - O(compose), O(groups) and O(keyed_groups) see the variables C(machine_name), C(machine_address), C(machine_set),
    C(machine_groups) and C(machine_running). They become no host variables.
options:
  plugin:
    description: Name of this plugin.
    type: str
    required: true
    choices: [turnkey.hpc.docker]
  cluster_name:
    description: Name of the cluster.
    type: str
    required: true
  access_dir:
    description:
      - Directory with the C(ssh_config), as given to M(turnkey.hpc.cluster_machines). Relative to the inventory file.
      - The directory above it becomes C(cluster_secrets_dir).
    type: str
    default: .secrets/access
  include_stopped:
    description: Whether machines that don't run are hosts too.
    type: bool
    default: false
"""

EXAMPLES = r"""
# inventories/demo/machines.docker.yml
plugin: turnkey.hpc.docker
cluster_name: demo
cache: true
cache_plugin: ansible.builtin.jsonfile
cache_connection: ~/.cache/turnkey
keyed_groups:
  - key: machine_set
    prefix: set

# The same in TOML, for example in a file inv.toml:
#   plugin = "turnkey.hpc.docker"
#   cluster_name = "demo"
"""

import hashlib
import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import tomllib
from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin, Cacheable, Constructable
from ansible.template import trust_as_template
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._old_layout import CANONICAL_GROUPS
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import check_cluster_name, natural_key
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.docker import DockerProvider

Row = dict[str, Any]
OURS = re.compile(rb"""^\s*plugin\s*=\s*["']turnkey\.hpc\.docker["']\s*(#.*)?$""", re.MULTILINE)


def _run(argv: list[str]) -> tuple[int, str, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    return done.returncode, done.stdout, done.stderr


def build_hosts(rows: list[Row], include_stopped: bool) -> list[Row]:
    """Return the rows that become hosts, in the order of their names. Pure."""
    hosts = [row for row in rows if row["running"] or include_stopped]
    return sorted(hosts, key=lambda row: natural_key(row["name"]))


def shared_variables(cluster: str, access_dir: Path) -> dict[str, str]:
    """Return the variables of the group ``all``. Pure."""
    digest = hashlib.sha256(str(access_dir).encode()).hexdigest()[:8]
    return {
        "cluster_name": cluster,
        "cluster_secrets_dir": str(access_dir.parent),
        "ansible_user": "root",
        "ansible_ssh_common_args": f"-F {shlex.quote(str(access_dir / 'ssh_config'))}",
        # Clusters with the same host names must not share connections; sockets allow 108 bytes of path.
        "ansible_control_path_dir": f"~/.ansible/cp/{cluster}-{digest}",
    }


class _TomlLoader:
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


class InventoryModule(BaseInventoryPlugin, Constructable, Cacheable):
    """Lists one cluster's containers."""

    NAME = "turnkey.hpc.docker"

    def verify_file(self, path: str) -> bool:
        """Accept ``*docker.yml`` and ``*docker.yaml``, and TOML that names this plugin."""
        if not super().verify_file(path):
            return False
        if path.endswith(".toml"):
            return OURS.search(Path(path).read_bytes()) is not None
        return path.endswith(("docker.yml", "docker.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill the inventory."""
        super().parse(inventory, loader, path, cache)
        self._read_config_data(path)
        cluster = self.get_option("cluster_name")
        access_dir = Path(path).absolute().parent / Path(self.get_option("access_dir")).expanduser()
        # Nothing can have an illegal name. The playbooks refuse it in one message; here Ansible would go on with its
        # other plugins, and bury it under their complaints.
        rows = [] if check_cluster_name(cluster) else self._rows(path, cluster, cache)
        self._emit(rows, shared_variables(cluster, access_dir))

    def _read_config_data(self, path: str) -> Any:
        """Read the options from YAML or TOML."""
        loader: Any = self.loader  # type: ignore[has-type]
        self.loader = _TomlLoader() if path.endswith(".toml") else loader
        try:
            return super()._read_config_data(path)
        finally:
            self.loader = loader

    def _rows(self, path: str, cluster: str, cache: bool) -> list[Row]:
        """Return the rows from the cache, or fetch and keep them."""
        if not self.get_option("cache"):
            return self._fetch(cluster)
        key = self.get_cache_key(path)
        if cache:
            try:
                kept = self._cache[key]
            except KeyError:
                pass
            else:
                return list(kept)
        rows = self._fetch(cluster)
        self._cache[key] = rows
        return rows

    def _fetch(self, cluster: str) -> list[Row]:
        """Ask the Docker engine: the only input of this plugin."""
        try:
            machines = DockerProvider.connect(_run).list_instances(cluster)
        except HpcError as error:
            raise AnsibleParserError(str(error)) from None  # Ansible prints every cause: it would say it twice
        return [
            {
                "name": machine.name,
                "address": machine.address,
                "set": machine.set_name,
                "groups": list(machine.groups),
                "running": machine.running,
            }
            for machine in machines
        ]

    def _emit(self, rows: list[Row], shared: dict[str, str]) -> None:
        for group in CANONICAL_GROUPS:
            self.inventory.add_group(group)
        for name, value in shared.items():
            self.inventory.set_variable("all", name, value)
        strict = self.get_option("strict")
        for row in build_hosts(rows, self.get_option("include_stopped")):
            host = row["name"]
            self.inventory.add_host(host)
            self.inventory.set_variable(host, "ansible_host", host)
            self.inventory.set_variable(host, "cluster_address", row["address"])
            for group in row["groups"]:
                self.inventory.add_group(group)
                self.inventory.add_host(host, group=group)
            seen = {f"machine_{name}": value for name, value in row.items()}
            self._set_composite_vars(self.get_option("compose"), seen, host, strict=strict)
            self._add_host_to_composed_groups(self.get_option("groups"), seen, host, strict=strict)
            self._add_host_to_keyed_groups(self.get_option("keyed_groups"), seen, host, strict=strict)
