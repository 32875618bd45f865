# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import json
import re
import socket
import tarfile

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers import docker as provider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import (
    Auth,
    Capacity,
    Conflict,
    Invalid,
    NotFound,
    Resource,
    State,
    expand_spec,
)

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0UMHxFnQTFghS+U1IJIeeLMXh7cUzIWQyHxeqsS8tc"
VOLUMES = [{"name": "shared", "path": "/shared"}]


def spec(**changes):
    head = {
        "name": "head",
        "image": "i",
        "bastion": True,
        "groups": ["controller", "login"],
        "cpus": 1.5,
        "volumes": VOLUMES,
    }
    node = {"name": "node", "image": "i", "count": 2, "memory_mb": 512, "volumes": VOLUMES}
    given = {"cluster_name": "demo", "network": "10.0.0.0/24", "machine_sets": [head, node], "admin_public_key": KEY}
    return expand_spec({**given, **changes})


def request(name):
    items = {item.key: item for item in provider_for().desired(spec()) if item.kind == "machine"}
    return items[name].request["config"]


def provider_for(api=None, run=None, remote_host=""):
    return provider.DockerProvider(api, run, remote_host)


def test_only_the_bastion_publishes_a_port():
    assert request("head")["HostConfig"]["PortBindings"] == {"22/tcp": [{"HostIp": "127.0.0.1", "HostPort": "2222"}]}
    assert request("head")["Labels"]["turnkey.bastion"] == "127.0.0.1:2222"
    assert "PortBindings" not in request("node1")["HostConfig"]
    assert "ExposedPorts" not in request("node1")
    assert "turnkey.bastion" not in request("node1")["Labels"]


def test_a_container_has_its_name_address_volume_and_limits():
    config = request("node2")
    endpoint = config["NetworkingConfig"]["EndpointsConfig"]["turnkey-demo"]
    assert (config["Hostname"], endpoint["Aliases"]) == ("node2", ["node2"])
    assert endpoint["IPAMConfig"]["IPv4Address"] == "10.0.0.12"
    assert config["HostConfig"]["Memory"] == 512 * 2**20
    assert request("head")["HostConfig"]["NanoCpus"] == 1_500_000_000
    assert [(m["Source"], m["Target"]) for m in config["HostConfig"]["Mounts"]] == [("turnkey-demo-shared", "/shared")]


def test_a_container_can_neither_raise_limits_nor_set_the_clock_nor_see_the_hosts_cgroups():
    host = request("head")["HostConfig"]
    assert host["CapDrop"] == ["SYS_RESOURCE", "SYS_TIME"]
    assert host["CgroupnsMode"] == "private"
    assert "Binds" not in host
    assert "Privileged" not in host


@pytest.mark.parametrize(
    "changes",
    [{"bastion_port": 2223}, {"machine_sets": [{"name": "head", "image": "j", "bastion": True}]}],
    ids=["port", "image"],
)
def test_a_changed_specification_has_another_hash(changes):
    def digest(one):
        return next(item.spec_hash for item in provider_for().desired(one) if item.key == "head")

    assert digest(spec()) == digest(spec())
    assert digest(spec()) != digest(spec(**changes))


def test_the_operators_key_is_a_setting_and_not_part_of_the_hash():
    with_key, without = (provider_for().desired(spec(admin_public_key=key))[-1] for key in (KEY, ""))
    assert with_key.spec_hash == without.spec_hash
    assert with_key.settings == {"operator_keys": frozenset({KEY})}


@pytest.mark.parametrize(
    ("error", "installed", "kind", "text"),
    [
        (FileNotFoundError(2, "x"), False, HpcError, "Docker is not installed"),
        (FileNotFoundError(2, "x"), True, HpcError, "not running: nothing answers at unix:///s"),
        (ConnectionRefusedError(111, "x"), True, HpcError, "not running"),
        (PermissionError(13, "x"), True, Auth, "User me has no right .*usermod -aG docker me"),
        (ValueError("odd"), True, HpcError, "can't be used: odd"),
    ],
)
def test_an_unreachable_engine_is_explained(error, installed, kind, text):
    wrapped = RuntimeError("outer")
    wrapped.__cause__ = error  # as the HTTP libraries do
    with pytest.raises(kind, match=text):
        raise provider.explain_unreachable(
            wrapped if isinstance(error, OSError) else error, "unix:///s", installed, "me"
        )


def test_a_machine_that_stops_for_want_of_inotify_instances_names_the_limit():
    messages = "head systemd[1]: Failed to create inotify object: Too many open files"
    assert "sysctl fs.inotify.max_user_instances=" in provider.hint(messages)
    assert provider.hint("head systemd[1]: Reached target local-fs.target") == ""


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (404, "No such container", NotFound),
        (409, "removal of container x is already in progress", Conflict),
        (403, "network n id 1 has active endpoints", Conflict),
        (403, "Pool overlaps with other one on this address space", Invalid),
        (400, "bad parameter", Invalid),
        (500, "write /x: no space left on device", Capacity),
    ],
)
def test_errors_of_the_engine_fall_into_classes(status, text, kind):
    assert provider._classified(status, text, "create machine a").__class__ is kind


ROUTES = [
    {"dst": "default", "gateway": "192.0.2.1", "dev": "eth0"},
    {"dst": "0.0.0.0/1", "dev": "tun0"},
    {"dst": "10.8.0.0/16", "dev": "wg0"},
    {"dst": "10.0.0.0/24", "dev": "br-123"},
    {"dst": "10.9.9.9", "dev": "eth1"},
]


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("10.0.0.0/24", []),
        ("10.8.3.0/24", ["route 10.8.0.0/16 over wg0"]),
        ("10.9.9.0/24", ["route 10.9.9.9/32 over eth1"]),
        ("172.30.0.0/24", []),
    ],
)
def test_routes_of_the_host_that_overlap_are_found(network, expected):
    assert provider.overlapping_routes(json.dumps(ROUTES), network, {"br-123"}) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{KEY} root@node1\n", KEY),
        (f"{KEY}\n", KEY),
        (KEY, ""),
        (KEY[:40] + "\n", ""),
        ("ssh-ed25519 !!!!\n", ""),
        ("ssh-rsa AAAA\n", ""),
        ("", ""),
    ],
)
def test_a_host_key_counts_only_when_it_is_complete(text, expected):
    assert provider._host_key(text) == expected


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("   0: 00000000:0016 00000000:0000 0A 00000000:00000000", True),
        ("   0: 00000000000000000000000000000000:0016 00000000000000000000000000000000:0000 0A 0", True),
        ("   0: 0100007F:0CEA 00000000:0000 0A 00000000:00000000", False),
        ("   0: 0100007F:0016 0100007F:8000 01 00000000:00000000", False),
        ("", False),
    ],
)
def test_a_listening_sshd_is_seen_in_the_socket_table(line, expected):
    header = "  sl  local_address rem_address   st tx_queue rx_queue"
    assert provider._listens(f"{header}\n{line}\n", 22) is expected


def test_the_operators_key_is_packed_with_private_modes():
    with tarfile.open(fileobj=io.BytesIO(provider._key_archive([KEY]))) as archive:
        modes = {member.name: member.mode for member in archive}
        content = archive.extractfile("root/.ssh/authorized_keys").read().decode()
    assert modes == {"root": 0o700, "root/.ssh": 0o700, "root/.ssh/authorized_keys": 0o600}
    assert content == KEY + "\n"


class Engine:
    """Answers of an engine, as far as the checks ask."""

    def __init__(self, containers=(), networks=(), images=("i",), volumes=(), root="/nowhere"):
        self._containers, self._networks = list(containers), list(networks)
        self._images, self._volumes, self._root = images, volumes, root

    def containers(self, **_arguments):
        return self._containers

    def networks(self, **_arguments):
        return self._networks

    def info(self):
        return {"DockerRootDir": self._root}

    def inspect_image(self, name):
        self._find(name in self._images)

    def inspect_volume(self, name):
        self._find(name in self._volumes)

    @staticmethod
    def _find(there):
        if not there:
            errors = pytest.importorskip("docker.errors")
            requests = pytest.importorskip("requests")
            response = requests.Response()
            response.status_code = 404
            raise errors.NotFound("no", response=response)


def no_routes(_argv):
    return 0, "[]", ""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


PORT = free_port()
DEVNET = {"Name": "devnet", "Id": "f" * 64, "Labels": {}, "IPAM": {"Config": [{"Subnet": "10.0.0.0/16"}]}}


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        ({"images": ()}, "image i is not in .* turnkey.hpc.image"),
        ({"containers": [{"Names": ["/demo-node1"]}]}, "container demo-node1 exists but isn't of this cluster"),
        (
            {"networks": [{**DEVNET, "Name": "turnkey-demo", "IPAM": {}}]},
            "Docker network turnkey-demo exists but isn't",
        ),
        ({"volumes": ("turnkey-demo-shared",)}, "volume turnkey-demo-shared exists but isn't of this cluster"),
        ({"networks": [DEVNET]}, r"overlaps Docker network devnet \(10.0.0.0/16\)"),
        ({"root": "/"}, "/ has .* GB free, 1e\\+09 GB are needed"),
        (
            {"containers": [{"Names": ["/web"], "Ports": [{"IP": "0.0.0.0", "PublicPort": PORT}]}]},
            f"port 127.0.0.1:{PORT} is in use by container web",
        ),
    ],
    ids=["image", "container", "network", "volume", "subnet", "disk", "port"],  # xdist: the same in every process
)
def test_the_environment_is_checked_before_anything_is_made(engine, text):
    pytest.importorskip("docker")
    problems = provider_for(Engine(**engine), no_routes).check(
        spec(bastion_port=PORT, options={"min_free_disk_gb": 10**9}), State()
    )
    assert len(problems) == 1
    assert re.search(text, problems[0])


def test_a_port_of_another_program_is_found():
    pytest.importorskip("docker")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        problems = provider_for(Engine(), no_routes).check(spec(bastion_port=port), State())
    assert problems == [
        f"port 127.0.0.1:{port} is in use by another program (ss -ltnp 'sport = {port}'). "
        "Stop that, or choose another cluster_bastion_port."
    ]


def test_what_belongs_to_the_cluster_is_no_problem():
    pytest.importorskip("docker")
    wanted = spec(bastion_port=PORT, options={"min_free_disk_gb": 10**9})
    desired = provider_for().desired(wanted)
    state = State(tuple(Resource(item.kind, item.key, "id", item.spec_hash, item.attributes) for item in desired))
    ours = {"turnkey.cluster": "demo"}
    network = {**DEVNET, "Name": "turnkey-demo", "Labels": ours}
    bastion = {"Names": ["/demo-head"], "Labels": ours, "Ports": [{"IP": "127.0.0.1", "PublicPort": PORT}]}
    engine = Engine([bastion], [network], images=(), volumes=("turnkey-demo-shared",), root="/")
    assert provider_for(engine, no_routes).check(wanted, state) == []


def test_an_engine_elsewhere_needs_a_reachable_bastion():
    pytest.importorskip("docker")
    remote = provider_for(Engine(), no_routes, "engine.example")
    assert "the Docker engine is on engine.example. Use 0.0.0.0." in remote.check(spec(), State())[0]
    assert remote.check(spec(bastion_bind="0.0.0.0"), State()) == []
