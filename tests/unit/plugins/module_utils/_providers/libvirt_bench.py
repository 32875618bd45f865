# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A hypervisor to test the provider on: libvirt's own driver for tests, which is all of libvirt but the machines."""

from __future__ import annotations

import itertools
import json
import tempfile

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers import libvirt as provider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers import libvirt_api
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import expand_spec
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import plan, plan_absent

native = pytest.importorskip("libvirt", reason="libvirt-python is installed by `tools/setup vm` only")
pytest.importorskip("pycdlib", reason="pycdlib is installed by `tools/setup vm` only")

QCOW2 = b"QFI\xfb\x00\x00\x00\x03" + bytes(16) + (2 << 30).to_bytes(8, "big") + bytes(600)
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIB0UMHxFnQTFghS+U1IJIeeLMXh7cUzIWQyHxeqsS8tc"
NODE = '<domain type="test"><name>{}</name><memory>1024</memory><os><type>hvm</type></os></domain>'


class Pool(libvirt_api.Pool):
    """Keeps what is uploaded, since the driver for tests has no streams; a machine's console is in ``consoles``."""

    uploads: dict[str, bytes] = {}  # noqa: RUF012
    consoles: dict[str, str] = {}  # noqa: RUF012

    fault = staticmethod(lambda _call: None)

    def upload(self, name, content, length):
        self.fault("upload")
        assert name in self.names()
        Pool.uploads[name] = content.read(length)

    def save(self, name, target):
        self.fault("save")
        assert name in self.names()
        target.write(QCOW2)

    def download(self, name, last_bytes):
        return Pool.consoles.get(name, "").encode()[-last_bytes:]


class Hypervisor(libvirt_api.Hypervisor):
    """A hypervisor of the driver for tests, with as much memory as a test wants, and a fault where it wants one."""

    def __init__(self, uri, memory_mb=10**6):
        # Connections to test:///default share one host; those to a file have one each.
        with tempfile.NamedTemporaryFile("w", suffix=".xml") as host:
            host.write("<node/>")
            host.flush()
            super().__init__(uri, native.open(f"test://{host.name}"))
        self.memory_mb = memory_mb
        self.faults = {}

    def free_memory_mb(self):
        return self.memory_mb

    def addresses(self, domain):
        return {}  # the driver invents some, and dies of networks without addresses

    def pool(self, uuid, start=True):
        found = super().pool(uuid, start)
        if found:
            found = Pool(found.name, found.path, found._handle)
            found.fault = self._fault
        return found

    def define(self, xml):
        self._fault("define")
        # The driver takes its own type of domain only, and knows no features of QEMU.
        xml = xml.replace('type="qemu"', 'type="test"', 1).replace('<tcg><tb-cache unit="MiB">256</tb-cache></tcg>', "")
        super().define(xml)

    def undefine(self, name):
        self._fault("undefine")
        self._connection.lookupByName(name).undefine()

    def reserve(self, network, entry, first):
        self._fault("reserve")
        super().reserve(network, entry, first)

    def mark(self, domain, mark):
        self._fault("mark")
        super().mark(domain, mark)

    def start(self, name):
        self._fault("start")
        super().start(name)

    def _fault(self, call):
        if self.faults.get(call, 0) > 0:
            self.faults[call] -= 1
            raise HpcError(f"the hypervisor died in {call}")


def make_image(path, version, **more):
    path.mkdir(exist_ok=True)
    (path / "disk.qcow2").write_bytes(QCOW2)
    (path / "vmlinuz").write_bytes(b"kernel")
    given = {"hash": version, "disk": "disk.qcow2", "kernel": "vmlinuz", "initrd": None, "cmdline": "root=/dev/vda"}
    (path / "image.json").write_text(json.dumps({**given, **more}))
    return str(path)


def spec_of(image, nodes=2, libvirt=None, key=KEY, cluster="lab", **node):
    sets = [
        {"name": "head", "image": image, "instance_type": "small", "bastion": True, "groups": ["controller"]},
        {"name": "node", "count": nodes, "image": image, "instance_type": "small", "groups": ["compute"], **node},
    ]
    place = {"kinds": {"small": {"vcpus": 1, "memory_mb": 512}, "big": {"vcpus": 2, "memory_mb": 900}}}
    return expand_spec(
        {
            "provider": "libvirt",
            "cluster_name": cluster,
            "network": "10.97.11.0/24",
            "machine_sets": sets,
            "admin_public_key": key,
            "libvirt": {**place, "accelerator": "emulation", **(libvirt or {})},
        }
    )


def no_route(_argv):
    return 1, "", "no such command"


def provider_of(*hypervisors, run=no_route):
    ticks = itertools.count()
    return provider.LibvirtProvider(hypervisors, run, lambda: next(ticks), lambda _seconds: None)


def provision(spec, *hypervisors, **options):
    machines = provider_of(*hypervisors)
    state = machines.discover(spec.cluster)
    actions = plan(machines.desired(spec), state, **options)
    machines.apply(actions)
    return [str(action) for action in actions]


def destroy(cluster, *hypervisors):
    machines = provider_of(*hypervisors)
    machines.apply(plan_absent(machines.discover(cluster)))


def everything(hypervisor):
    connection = hypervisor._connection
    return {
        "domains": sorted(handle.name() for handle in connection.listAllDomains(0)),
        "networks": sorted(network.name for network in hypervisor.networks()),
        "pools": sorted(hypervisor.pool_names()),
    }


def volumes(hypervisor, cluster="lab"):
    pool = hypervisor.pool(provider._pool_id(cluster))
    return pool.names() if pool else []


def scanner(answers):
    def run(argv):
        assert argv[0] == "ssh-keyscan"
        return 0, "".join(f"{address} {key}\n" for address, key in answers.items() if address in argv), "# comments"

    return run
