# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.access import Access
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import (
    Desired,
    Machine,
    Provider,
    Resource,
    State,
    spec_hash,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import execute
from ansible_collections.turnkey.hpc.plugins.modules import cluster_machines

KEY = "ssh-ed25519 AAAA me"


class InMemory(Provider):
    """A provider whose machines are entries of a dictionary."""

    login_user = "root"

    def __init__(self, problems=()):
        self.resources, self.problems = {}, list(problems)

    def desired(self, spec):
        result = [Desired("network", "main", spec.network, {})]
        result += [Desired("volume", name, "", {}) for name in spec.volumes]
        for one in spec.machines:
            shown = {"address": one.address, "image": one.image, "state": "running"}
            depends = ("network/main", *(f"volume/{mount.name}" for mount in one.volumes))
            settings = {"keys": frozenset({spec.admin_public_key})}
            result.append(Desired("machine", one.name, spec_hash(shown), shown, settings, depends, request=one))
        return result

    def discover(self, cluster):
        return State(tuple(self.resources.values()))

    def check(self, spec, state):
        return self.problems

    def apply(self, actions, progress=None):
        return execute(actions, self._perform, progress)

    def _perform(self, action):
        if action.verb == "delete":
            del self.resources[action.resource.ref]
            return
        item = action.desired
        self.resources[item.ref] = Resource(item.kind, item.key, "id", item.spec_hash, item.attributes, item.settings)

    def list_instances(self, cluster):
        return [
            Machine(r.key, r.id, r.attributes["address"], "s", (), True, "root", r.key == "head", "127.0.0.1", 2222)
            for r in self.resources.values()
            if r.kind == "machine"
        ]

    def host_keys(self, cluster, names, timeout_seconds):
        return {name: f"ssh-ed25519 key-of-{name}" for name in names}

    def start(self, cluster, names):
        raise NotImplementedError

    stop = terminate = start


def keygen(argv):
    path = argv[argv.index("-f") + 1]
    for name, text in ((path, "PRIVATE"), (f"{path}.pub", f"ssh-ed25519 BBBB {argv[argv.index('-C') + 1]}\n")):
        with open(name, "w", encoding="utf-8") as file:  # noqa: PTH123
            file.write(text)
    return 0, "", ""


@pytest.fixture
def access(tmp_path):
    return Access(str(tmp_path / "access"), "demo", keygen)


def params(count=2, image="i", **changes):
    volumes = [{"name": "shared", "path": "/shared"}]
    return {
        "provider": "docker",
        "cluster_name": "demo",
        "network": "10.0.0.0/24",
        "machine_sets": [
            {"name": "head", "image": image, "bastion": True, "volumes": volumes},
            {"name": "node", "image": image, "count": count},
        ],
        "bastion_bind": "127.0.0.1",
        "bastion_port": 2222,
        "admin_public_key": None,
        "allow_replace": False,
        "confirm": "",
        "min_free_disk_gb": 2,
        "ready_timeout_seconds": 1,
        **changes,
    }


def test_check_mode_tells_what_would_be_made_and_makes_nothing(access):
    provider = InMemory()
    result = cluster_machines.present(params(), provider, access, check=True)
    assert result["changed"]
    assert result["actions"] == [
        "create network main",
        "create volume shared",
        "create machine head",
        "create machine node1",
        "create machine node2",
    ]
    assert "machine node2\n  address: 10.0.0.12" in result["diff"][0]["after"]
    assert provider.resources == {}
    assert not access.directory.exists()


def test_the_second_run_changes_nothing(access):
    provider = InMemory()
    first = cluster_machines.present(params(), provider, access, check=False)
    second = cluster_machines.present(params(), provider, access, check=False)
    assert (first["changed"], second["changed"]) == (True, False)
    assert (second["actions"], second["diff"]) == ([], [{"before": "", "after": ""}])
    assert cluster_machines.present(params(), provider, access, check=True)["changed"] is False
    assert [(one["name"], one["address"], one["host_key"]) for one in second["machines"]][1] == (
        "node1",
        "10.0.0.11",
        "ssh-ed25519 key-of-node1",
    )
    assert provider.resources["machine/head"].settings["keys"] == {"ssh-ed25519 BBBB turnkey-operator@demo"}
    assert "node2 ssh-ed25519 key-of-node2\n" in (access.directory / "known_hosts").read_text()


def test_a_given_key_is_used_and_none_is_made(access):
    provider = InMemory()
    cluster_machines.present(params(admin_public_key=KEY), provider, access, check=False)
    assert provider.resources["machine/head"].settings["keys"] == {KEY}
    assert sorted(path.name for path in access.directory.iterdir()) == ["known_hosts", "ssh_config"]


def test_without_an_access_directory_no_file_is_written_and_the_summary_says_how_to_log_in():
    result = cluster_machines.present(params(admin_public_key=KEY), InMemory(), None, check=False)
    assert result["summary"][-1] == "Log in: ssh -p 2222 root@127.0.0.1"


def test_scaling_down_removes_the_surplus_and_its_host_keys(access):
    provider = InMemory()
    cluster_machines.present(params(count=3), provider, access, check=False)
    result = cluster_machines.present(params(count=1), provider, access, check=False)
    assert result["actions"] == ["delete machine node2", "delete machine node3"]
    assert "node2" not in (access.directory / "known_hosts").read_text()


def test_problems_of_the_environment_and_of_the_plan_are_one_report_before_any_change(access):
    provider = InMemory()
    cluster_machines.present(params(), provider, access, check=False)
    before = dict(provider.resources)
    provider.problems = ["the disk is full."]
    with pytest.raises(
        InvalidInput, match=r"2 problems:\n1. the disk is full.\n2. This can only be changed by replacement"
    ):
        cluster_machines.present(params(image="j"), provider, access, check=False)
    assert provider.resources == before


def test_removal_is_refused_unless_confirmed_and_names_what_would_be_lost(access):
    provider = InMemory()
    cluster_machines.present(params(), provider, access, check=False)
    with pytest.raises(HpcError, match=r"machines head, node1, node2 .* volumes shared .* destroy_confirm=demo"):
        cluster_machines.absent(params(confirm="other"), provider, access, check=False)
    assert cluster_machines.absent(params(), provider, access, check=True)["changed"]
    assert len(provider.resources) == 5
    assert (
        cluster_machines.absent(params(confirm="demo"), provider, access, check=False)["actions"][-1]
        == "delete volume shared"
    )
    assert provider.resources == {}
    assert not access.directory.exists()
    assert cluster_machines.absent(params(), provider, access, check=False)["changed"] is False


def test_progress_is_a_line_for_each_step(tmp_path):
    path = tmp_path / "progress"
    given = params(admin_public_key=KEY, progress_file=str(path))
    result = cluster_machines.present(given, InMemory(), None, check=False)
    lines = path.read_text().splitlines()
    assert lines[0] == "1/5 create network main"
    assert sorted(line.partition(" ")[2] for line in lines) == sorted(result["actions"])


class ShowsLate(InMemory):
    """A cloud where one thing shows up in the second look only."""

    def __init__(self, times):
        super().__init__()
        self.times = times

    def apply(self, actions, progress=None):
        done = super().apply(actions, progress)
        if self.times:
            self.times -= 1
            self.resources["network/main"] = Resource("network", "main", "id", "", {})
        return done


def test_removal_looks_again_until_nothing_is_left():
    provider = ShowsLate(2)
    provider.resources["network/main"] = Resource("network", "main", "id", "", {})
    assert cluster_machines.absent(params(confirm="demo"), provider, None, check=False)["changed"]
    assert provider.resources == {}
    provider = ShowsLate(99)
    provider.resources["network/main"] = Resource("network", "main", "id", "", {})
    with pytest.raises(HpcError, match="there still is: network main"):
        cluster_machines.absent(params(confirm="demo"), provider, None, check=False)
