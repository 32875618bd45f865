# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The tarball is all that somebody needs: built here, installed into an empty place with no network, used from there.

The other collections that galaxy.yml names come from the Python package `ansible`, as in requirements.txt.
With TURNKEY_DEMO_INVENTORY set to the inventory of a running cluster, the installed playbooks also run on that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

TOP = Path(__file__).resolve().parents[2]
PLUGIN_KINDS = {
    "modules": "module",
    "filter": "filter",
    "inventory": "inventory",
    "lookup": "lookup",
    "callback": "callback",
}
CLUSTER = os.environ.get("TURNKEY_DEMO_INVENTORY")


@dataclass(frozen=True)
class Consumer:
    """Somebody who has Ansible and a directory for collections, and no checkout."""

    python: Path
    home: Path
    collections: Path

    def ansible(self, program: str, *arguments: str, **variables: str) -> str:
        """Run one of Ansible's programs and return what it prints."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ANSIBLE_")}
        environment |= {
            "ANSIBLE_HOME": str(self.home / ".ansible"),
            "ANSIBLE_COLLECTIONS_PATH": str(self.collections),
            "ANSIBLE_NOCOLOR": "1",
            "PATH": f"{self.python.parent}:{os.environ['PATH']}",
            **variables,
        }
        command = [str(self.python), "-m", "ansible", program, *arguments]
        done = subprocess.run(
            command,
            cwd=self.home,
            env=environment,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture(scope="module")
def consumer(tmp_path_factory: pytest.TempPathFactory) -> Consumer:
    home = tmp_path_factory.mktemp("home")
    made = subprocess.run(
        [sys.executable, TOP / "tools/consumer-env", home / "venv"], check=True, capture_output=True, text=True
    )
    return Consumer(Path(made.stdout.strip()), home, home / "collections")


@pytest.fixture(scope="module")
def tarball(consumer: Consumer) -> Path:
    consumer.ansible("galaxy", "collection", "build", str(TOP), "--output-path", str(consumer.home / "build"))
    (built,) = (consumer.home / "build").glob("turnkey-hpc-*.tar.gz")
    return built


@pytest.fixture(scope="module")
def installed(consumer: Consumer, tarball: Path) -> Path:
    """Install the tarball; return the directory of the collection."""
    before = consumer.ansible("galaxy", "collection", "list", "--format", "json")
    assert "turnkey.hpc" not in before, f"the checkout is within reach, so this would prove nothing:\n{before}"
    consumer.ansible("galaxy", "collection", "install", str(tarball), "--offline", "-p", str(consumer.collections))
    return consumer.collections / "ansible_collections/turnkey/hpc"


def test_the_tarball_installs_into_an_empty_place_without_a_network_and_with_its_dependencies_met(
    consumer: Consumer, installed: Path
) -> None:
    listed = json.loads(consumer.ansible("galaxy", "collection", "list", "--format", "json"))
    everywhere = {name: entry["version"] for place in listed.values() for name, entry in place.items()}
    assert everywhere["turnkey.hpc"] == yaml.safe_load((TOP / "galaxy.yml").read_text())["version"]
    assert set(yaml.safe_load((TOP / "galaxy.yml").read_text())["dependencies"]) <= set(everywhere)


def test_the_tarball_holds_no_secret_no_environment_and_no_cache(tarball: Path) -> None:
    with tarfile.open(tarball) as archive:
        names = archive.getnames()
    unwanted = ("__pycache__", ".pyc", ".venv", ".cache", ".secrets", ".git/", "verify.json", ".tar.gz")
    assert [name for name in names if any(part in name for part in unwanted)] == []


def test_every_plugin_and_every_role_of_the_checkout_is_documented_by_the_installed_collection(
    consumer: Consumer, installed: Path
) -> None:
    printed = json.loads(consumer.ansible("doc", "--metadata-dump", "--no-fail-on-errors", "turnkey.hpc"))["all"]
    missing = []
    for directory, kind in PLUGIN_KINDS.items():
        for plugin in (TOP / "plugins" / directory).glob("[!_]*.py"):
            entry = printed.get(kind, {}).get(f"turnkey.hpc.{plugin.stem}", {})
            if not str(entry.get("doc", {}).get("filename", "")).startswith(str(installed)):
                missing.append(f"{kind} {plugin.stem}: {entry.get('error', entry.get('doc', {}).get('filename'))}")
    for role in (TOP / "roles").iterdir():
        entry = printed.get("role", {}).get(f"turnkey.hpc.{role.name}", {})
        if not entry.get("entry_points") or not str(entry.get("path", "")).startswith(str(installed)):
            missing.append(f"role {role.name}: {entry.get('error', entry.get('path'))}")
    assert missing == []


def test_ansible_doc_prints_every_role_and_module_as_text(consumer: Consumer, installed: Path) -> None:
    roles = sorted(f"turnkey.hpc.{role.name}" for role in (installed / "roles").iterdir())
    modules = sorted(f"turnkey.hpc.{module.stem}" for module in (installed / "plugins/modules").glob("[!_]*.py"))
    for kind, names in (("role", roles), ("module", modules)):
        printed = consumer.ansible("doc", "-t", kind, *names)
        assert [name for name in names if name not in printed] == []


def test_the_installed_playbooks_are_found_by_their_names_and_pass_the_syntax_check(
    consumer: Consumer, installed: Path
) -> None:
    names = sorted(f"turnkey.hpc.{path.stem}" for path in (installed / "playbooks").glob("*.yml"))
    assert {"turnkey.hpc.site", "turnkey.hpc.reset"} <= set(names)
    consumer.ansible("playbook", "-i", "localhost,", "--syntax-check", *names)


if CLUSTER:

    @pytest.mark.parametrize("playbook", ["turnkey.hpc.site", "turnkey.hpc.verify"])
    def test_the_installed_playbook_runs_on_a_running_cluster(
        consumer: Consumer, installed: Path, playbook: str
    ) -> None:
        inventory = str((TOP / str(CLUSTER)).resolve())
        output = consumer.ansible("playbook", "-i", inventory, playbook, ANSIBLE_CONFIG=str(TOP / "ansible.cfg"))
        assert "failed=0" in output
        assert str(TOP / "playbooks") not in output
