# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The provider against libvirt's own driver for tests."""

from __future__ import annotations

import dataclasses
import io
import json
import random

import pytest

pytest.importorskip("libvirt", reason="libvirt-python is installed by `tools/setup vm` only")
pytest.importorskip("pycdlib", reason="pycdlib is installed by `tools/setup vm` only")

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers import libvirt as provider
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import Capacity, Invalid, NotFound
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.plan import (
    ApplyError,
    ReplacementRefused,
    plan,
    plan_absent,
)
from ansible_collections.turnkey.hpc.tests.unit.plugins.module_utils._providers.libvirt_bench import (
    KEY,
    NODE,
    QCOW2,
    Hypervisor,
    Pool,
    destroy,
    everything,
    make_image,
    no_route,
    provider_of,
    provision,
    scanner,
    spec_of,
    volumes,
)

OTHER_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPrNQ4q0bmRWSXLNcMjPcKxmeGO5eQcqEhy3a8A6cQkN"


def test_what_was_made_is_found_again_and_a_second_run_does_nothing(hypervisor, image):
    spec = spec_of(image)
    assert provision(spec, hypervisor) == [
        "create pool qemu:///system",
        "create network main",
        "create machine head",
        "create machine node1",
        "create machine node2",
    ]
    assert provision(spec, hypervisor) == []
    machines = provider_of(hypervisor).list_instances("lab")
    assert [(m.name, m.address, m.groups, m.bastion, m.running, m.public_port) for m in machines] == [
        ("head", "10.97.11.10", ("controller",), True, True, 22),
        ("node1", "10.97.11.11", ("compute",), False, True, 22),
        ("node2", "10.97.11.12", ("compute",), False, True, 22),
    ]


def test_what_is_expected_is_what_comes(hypervisor, image):
    spec = spec_of(image)
    machines = provider_of(hypervisor)
    expected = [machines.expected(spec, item) for item in spec.machines]
    provision(spec, hypervisor)
    assert [dataclasses.replace(machine, id="") for machine in machines.list_instances("lab")] == expected


def test_destruction_leaves_nothing_and_touches_nothing_else(hypervisor, image):
    hypervisor._connection.defineXML(NODE.format("lab-of-another"))
    before = everything(hypervisor)
    provision(spec_of(image), hypervisor)
    assert everything(hypervisor) != before
    destroy("lab", hypervisor)
    assert everything(hypervisor) == before
    destroy("lab", hypervisor)


def test_a_cluster_whose_name_begins_like_another_is_not_taken_for_it(hypervisor, image):
    spec = spec_of(image)
    two = dataclasses.replace(spec_of(image, cluster="lab-two"), network="10.97.12.0/24", gateway="10.97.12.1")
    provision(spec, hypervisor)
    provision(two, hypervisor)
    destroy("lab", hypervisor)
    assert everything(hypervisor)["domains"] == ["lab-two-head", "lab-two-node1", "lab-two-node2"]
    assert provision(two, hypervisor) == []


def test_clusters_are_found_by_whatever_there_is_of_them(hypervisor, image):
    hypervisor._connection.defineXML(NODE.format("foreign-head"))
    hypervisor._connection.storagePoolDefineXML(
        '<pool type="dir"><name>turnkey-foreign</name><target><path>/x</path></target></pool>'
    )
    assert provider_of(hypervisor).clusters() == []
    two = dataclasses.replace(spec_of(image, cluster="two"), network="10.97.12.0/24", gateway="10.97.12.1")
    provision(spec_of(image), hypervisor)
    machines = provider_of(hypervisor)
    desired = machines.desired(two)
    machines.apply(plan([item for item in desired if item.kind == "pool"], machines.discover("two")))
    pool = hypervisor._connection.storagePoolLookupByName("turnkey-two")
    pool.destroy()
    assert provider_of(hypervisor).clusters() == ["lab", "two"]
    assert not pool.isActive(), "what others' clusters have is left as it is"


def test_the_disk_of_the_only_machine_is_written_whole_after_it_is_off(hypervisor, image):
    spec = spec_of(image, nodes=0)
    provision(spec, hypervisor)
    written = io.BytesIO()
    provider_of(hypervisor).export_disk("lab", written)
    assert written.getvalue() == QCOW2
    assert hypervisor.domain("lab-head").state == "stopped"
    assert not [name for name in volumes(hypervisor) if name.startswith("whole-")]


def test_a_cluster_of_several_machines_is_no_disk(hypervisor, image):
    provision(spec_of(image), hypervisor)
    with pytest.raises(Invalid, match="cluster lab has 3 machines, and an image is made from one"):
        provider_of(hypervisor).export_disk("lab", io.BytesIO())
    assert hypervisor.domain("lab-head").state == "running"


def test_a_copy_that_could_not_be_read_is_removed(hypervisor, image):
    provision(spec_of(image, nodes=0), hypervisor)
    hypervisor.faults["save"] = 1
    with pytest.raises(HpcError, match="died in save"):
        provider_of(hypervisor).export_disk("lab", io.BytesIO())
    assert not [name for name in volumes(hypervisor) if name.startswith("whole-")]


def test_names_that_others_have_are_reported_before_anything_is_made(hypervisor, image):
    hypervisor._connection.defineXML(NODE.format("lab-node1"))
    hypervisor._connection.networkDefineXML("<network><name>turnkey-lab</name></network>")
    hypervisor._connection.storagePoolDefineXML(
        '<pool type="dir"><name>turnkey-lab</name><target><path>/x</path></target></pool>'
    )
    machines, spec = provider_of(hypervisor), spec_of(image)
    before = everything(hypervisor)
    problems = machines.check(spec, machines.discover("lab"))
    assert len(problems) == 3
    for what in ("domain lab-node1", "storage pool turnkey-lab", "network turnkey-lab"):
        assert any(problem.startswith(what) for problem in problems)
    assert everything(hypervisor) == before
    destroy("lab", hypervisor)
    assert everything(hypervisor) == before


def test_a_domain_that_another_took_over_meanwhile_is_not_removed(hypervisor, image):
    provision(spec_of(image), hypervisor)
    machines = provider_of(hypervisor)
    actions = plan_absent(machines.discover("lab"))
    hypervisor.power_off("lab-node1")
    hypervisor.undefine("lab-node1")
    hypervisor._connection.defineXML(NODE.format("lab-node1"))
    machines.apply(actions)
    assert everything(hypervisor)["domains"] == ["lab-node1"]


def test_an_address_is_kept_for_each_machine_by_its_mac(hypervisor, image):
    provision(spec_of(image), hypervisor)
    xml = next(network.xml for network in hypervisor.networks() if network.name == "turnkey-lab")
    for name, mac, address in (
        ("head", "52:54:0a:61:0b:0a", "10.97.11.10"),
        ("node2", "52:54:0a:61:0b:0c", "10.97.11.12"),
    ):
        assert f"<host mac='{mac}' name='{name}' ip='{address}'/>" in xml
    provision(spec_of(image, nodes=1), hypervisor)
    xml = next(network.xml for network in hypervisor.networks() if network.name == "turnkey-lab")
    assert "node1" in xml
    assert "node2" not in xml


def test_a_machine_that_goes_takes_its_volumes_along_and_an_image_stays_while_it_is_used(hypervisor, image, tmp_path):
    provision(spec_of(image), hypervisor)
    old = {"image-0123456789abcdef.qcow2", "image-0123456789abcdef.vmlinuz", "image-0123456789abcdef.complete"}
    assert old < set(volumes(hypervisor))
    make_image(tmp_path / "image", "fedcba9876543210")
    assert provision(spec_of(image, nodes=3), hypervisor) == ["create machine node3"]  # others keep the older image
    assert old < set(volumes(hypervisor))
    provision(spec_of(image, nodes=0), hypervisor)
    assert sorted(volumes(hypervisor)) == sorted({*old, "head.console", "head.disk.qcow2", "head.seed.iso"})


def test_a_copy_of_an_image_that_was_cut_off_is_made_anew(hypervisor, image):
    provision(spec_of(image, nodes=1), hypervisor)
    pool = hypervisor.pool(provider._pool_id("lab"))
    pool.remove("image-0123456789abcdef.complete")
    Pool.uploads.clear()
    provision(spec_of(image), hypervisor)
    assert {"image-0123456789abcdef.qcow2", "image-0123456789abcdef.vmlinuz"} < set(Pool.uploads)


def test_another_kind_of_machine_is_a_replacement_which_is_refused_at_first(hypervisor, image):
    provision(spec_of(image), hypervisor)
    big = spec_of(image, instance_type="big")
    with pytest.raises(ReplacementRefused, match=r"node1 \(kind: small -> big, memory_mb: 512 -> 900, vcpus: 1 -> 2\)"):
        provision(big, hypervisor)
    assert "delete machine node2" in " ".join(provision(big, hypervisor, allow_replace=True))
    assert provision(big, hypervisor) == []


def test_other_groups_are_written_into_the_mark_and_replace_nothing(hypervisor, image):
    provision(spec_of(image), hypervisor)
    provider_of(hypervisor).stop("lab", ["node2"])
    changed = spec_of(image, groups=["compute", "login"])
    assert provision(changed, hypervisor) == ["update machine node1 (groups)", "start machine node2"]
    assert provision(changed, hypervisor) == []
    assert [m.groups for m in provider_of(hypervisor).list_instances("lab")][1:] == [("compute", "login")] * 2


def test_stopped_machines_are_started_and_a_stopped_network_too(hypervisor, image):
    spec = spec_of(image)
    provision(spec, hypervisor)
    provider_of(hypervisor).stop("lab", ["node1"])
    assert [m.running for m in provider_of(hypervisor).list_instances("lab")] == [True, False, True]
    hypervisor._connection.lookupByName("lab-node2").suspend()
    hypervisor._connection.networkLookupByName("turnkey-lab").destroy()
    assert provision(spec, hypervisor) == ["start network main", "start machine node1", "start machine node2"]
    assert provision(spec, hypervisor) == []


def test_terminate_removes_only_what_is_named(hypervisor, image):
    provision(spec_of(image), hypervisor)
    provider_of(hypervisor).terminate("lab", ["node2", "node7"])
    assert everything(hypervisor)["domains"] == ["lab-head", "lab-node1"]
    assert "node2.disk.qcow2" not in volumes(hypervisor)


def test_start_and_stop_of_an_unknown_machine_is_an_error(hypervisor, image):
    provision(spec_of(image), hypervisor)
    for call in (provider_of(hypervisor).start, provider_of(hypervisor).stop):
        with pytest.raises(NotFound, match="has no machine node7"):
            call("lab", ["node7"])


@pytest.mark.parametrize("call", ["define", "upload", "mark", "reserve", "start", "undefine"])
def test_a_run_that_died_anywhere_is_completed_by_the_next_one(hypervisor, image, call):
    spec = spec_of(image)
    hypervisor.faults = {call: 2}
    if call != "undefine":
        with pytest.raises(ApplyError):
            provision(spec, hypervisor)
    provision(spec, hypervisor)
    assert provision(spec, hypervisor) == []
    assert len(everything(hypervisor)["domains"]) == 3
    assert set(provider_of(hypervisor).states("lab", "machine").values()) == {"running"}
    assert {f"{name}.seed.iso" for name in ("head", "node1", "node2")} < set(volumes(hypervisor))
    if call == "undefine":
        with pytest.raises(ApplyError):
            destroy("lab", hypervisor)
    destroy("lab", hypervisor)
    assert everything(hypervisor) == {"domains": [], "networks": [], "pools": []}


@pytest.mark.parametrize("seed", range(12))
def test_any_series_of_changes_and_faults_ends_as_the_last_specification_says(hypervisor, image, seed):
    dice = random.Random(seed)
    for _step in range(8):
        spec = spec_of(image, nodes=dice.randrange(4), instance_type=dice.choice(["small", "big"]))
        hypervisor.faults = {
            dice.choice(["define", "upload", "mark", "reserve", "start", "undefine"]): dice.randrange(3)
        }
        try:
            provision(spec, hypervisor, allow_replace=True)
        except ApplyError:
            continue
    hypervisor.faults = {}
    spec = spec_of(image, nodes=dice.randrange(4))
    provision(spec, hypervisor, allow_replace=True)
    assert provision(spec, hypervisor) == []
    names = [machine.name for machine in spec.machines]
    assert [machine.name for machine in provider_of(hypervisor).list_instances("lab")] == names
    disks = [volume for volume in volumes(hypervisor) if volume.endswith(".disk.qcow2")]
    assert disks == sorted(f"{name}.disk.qcow2" for name in names)
    destroy("lab", hypervisor)
    assert everything(hypervisor) == {"domains": [], "networks": [], "pools": []}


def two_hypervisors(first_mb, second_mb):
    pair = (
        Hypervisor("qemu+ssh://admin@hv1/system", first_mb),
        Hypervisor("qemu+ssh://admin@hv2:2222/system", second_mb),
    )
    for item in pair:
        item._connection.networkDefineXML("<network><name>hpc</name><bridge name='br0'/></network>").create()
    return pair


def places(*hypervisors):
    return {item.uri.partition("@")[2][:3]: everything(item)["domains"] for item in hypervisors}


@pytest.mark.parametrize(
    ("spread", "memory", "expected"),
    [
        ("round_robin", (9000, 9000), {"hv1": ["lab-head", "lab-node2"], "hv2": ["lab-node1", "lab-node3"]}),
        ("round_robin", (600, 9000), {"hv1": ["lab-head"], "hv2": ["lab-node1", "lab-node2", "lab-node3"]}),
        ("memory", (9000, 700), {"hv1": ["lab-head", "lab-node1", "lab-node2", "lab-node3"], "hv2": []}),
    ],
)
def test_machines_are_spread_over_hypervisors(image, spread, memory, expected):
    pair = two_hypervisors(*memory)
    place = {"hypervisors": [item.uri for item in pair], "network": "hpc", "spread": spread}
    spec = spec_of(image, nodes=3, libvirt=place)
    machines = provider_of(*pair)
    assert machines.check(spec, machines.discover("lab")) == []
    provision(spec, *pair)
    assert places(*pair) == expected
    assert provision(spec, *pair) == []
    jumps = {machine.name: machine.jump for machine in machines.list_instances("lab")}
    assert jumps["head"] == "admin@hv1"
    assert set(jumps.values()) <= {"admin@hv1", "admin@hv2:2222"}
    destroy("lab", *pair)
    assert places(*pair) == {"hv1": [], "hv2": []}
    assert all("hpc" in everything(item)["networks"] for item in pair)


def test_too_little_memory_is_reported_before_anything_is_made(hypervisor, image):
    hypervisor.memory_mb = 1100
    machines = provider_of(hypervisor)
    (problem,) = machines.check(spec_of(image), machines.discover("lab"))
    assert "no hypervisor has 512 MB of memory free for machine node2" in problem
    assert everything(hypervisor)["domains"] == []


def test_a_machine_that_is_replaced_makes_room_for_the_new_one(hypervisor, image):
    provision(spec_of(image), hypervisor)
    hypervisor.memory_mb = 800
    machines, big = provider_of(hypervisor), spec_of(image, instance_type="big")
    assert machines.check(big, machines.discover("lab")) == []
    provision(big, hypervisor, allow_replace=True)
    assert provision(big, hypervisor) == []


def test_a_missing_network_and_a_missing_image_are_reported_together(hypervisor, tmp_path):
    spec = spec_of(str(tmp_path / "none"), libvirt={"network": "hpc"})
    problems = provider_of(hypervisor).check(spec, provider_of(hypervisor).discover("lab"))
    assert [problem.partition(".")[0] for problem in problems] == [
        f"image {tmp_path}/none does not exist",
        "hypervisor qemu:///system has no network hpc that runs",
    ]


def test_a_network_that_others_use_is_reported(hypervisor, image):
    hypervisor._connection.networkDefineXML(
        "<network><name>old</name><ip address='10.97.11.129' prefix='25'/></network>"
    )
    routes = json.dumps([{"dst": "10.97.0.0/16", "dev": "eth7"}, {"dst": "default", "dev": "eth0"}])
    machines = provider_of(hypervisor, run=lambda _argv: (0, routes, ""))
    problems = machines.check(spec_of(image), machines.discover("lab"))
    assert "overlaps libvirt's network old (10.97.11.128/25)" in problems[0]
    assert "overlaps route 10.97.0.0/16 over eth7" in problems[1]


def test_the_first_boot_is_told_name_address_and_keys_and_no_secret(hypervisor, image):
    provision(spec_of(image), hypervisor)
    medium = Pool.uploads["node2.seed.iso"]
    for text in (b"cidata", b'"local-hostname": "node2"', b"10.97.11.12/24", b"52:54:0a:61:0b:0c", KEY.encode()):
        assert text in medium
    assert b"PRIVATE" not in medium
    identity = provider_of(hypervisor).list_instances("lab")[2].id
    assert f'"instance-id": "{identity}"'.encode() in medium


def boot(hypervisor, keys):
    for machine in provider_of(hypervisor).list_instances("lab"):
        if machine.name in keys:
            text = f"[ 1.0] noise\r\nTURNKEY-READY {machine.id} {keys[machine.name]}\r\n{machine.name} login: "
            Pool.consoles[f"{machine.name}.console"] = text


def test_a_machine_is_ready_when_ssh_shows_the_key_that_its_console_told(hypervisor, image):
    provision(spec_of(image, nodes=1), hypervisor)
    boot(hypervisor, {"head": KEY, "node1": OTHER_KEY})
    run = scanner({"10.97.11.10": KEY, "10.97.11.11": OTHER_KEY})
    keys = {"head": KEY, "node1": OTHER_KEY}
    assert provider_of(hypervisor, run=run).host_keys("lab", ["head", "node1"], 10) == keys
    # The console is empty after the next boot of an image with cloud-init: the key is kept.
    Pool.consoles.clear()
    assert provider_of(hypervisor, run=run).host_keys("lab", ["head", "node1"], 10) == keys
    assert provision(spec_of(image, nodes=1), hypervisor) == []


def test_another_key_than_the_console_told_is_refused(hypervisor, image):
    provision(spec_of(image, nodes=0), hypervisor)
    boot(hypervisor, {"head": KEY})
    machines = provider_of(hypervisor, run=scanner({"10.97.11.10": OTHER_KEY}))
    with pytest.raises(HpcError, match="shows another host key") as failure:
        machines.host_keys("lab", ["head"], 10)
    assert "head login:" in str(failure.value)


def test_a_machine_that_does_not_come_up_is_reported_with_the_end_of_its_console(hypervisor, image):
    provision(spec_of(image, nodes=1), hypervisor)
    boot(hypervisor, {"head": KEY})
    Pool.consoles["node1.console"] = "\x1b[31mKernel panic\x1b[0m - not syncing\a\r\n"
    machines = provider_of(hypervisor, run=scanner({"10.97.11.10": KEY}))
    lines = []
    machines.say = lines.append
    with pytest.raises(HpcError) as failure:
        machines.host_keys("lab", ["head", "node1"], 10)
    assert "machine node1 is not ready after 10 s: it has not written an ed25519 host key" in str(failure.value)
    assert "Kernel panic - not syncing" in str(failure.value)
    assert "\x1b" not in str(failure.value)
    assert "head" not in str(failure.value)
    assert lines == ["waiting for 1 of 2 machines: node1"]


def test_a_line_of_another_machine_or_of_a_boot_before_is_no_announcement():
    assert provider.announced_key(f"TURNKEY-READY other {KEY}\n", "mine") == ""
    assert provider.announced_key(f"TURNKEY-READY mine {KEY}\nTURNKEY-READY mine {OTHER_KEY}\n", "mine") == OTHER_KEY
    assert provider.announced_key(f"x TURNKEY-READY mine {KEY}\n", "mine") == ""
    block = f"-----BEGIN SSH HOST KEY KEYS-----\n{KEY} root@x\n-----END SSH HOST KEY KEYS-----\n"
    assert provider.announced_key(block, "mine") == KEY


@pytest.mark.parametrize(
    ("lease", "reported", "expected"),
    [
        ("10.0.0.77", ["10.0.0.78"], "10.0.0.77"),
        ("", ["172.17.0.1", "10.0.0.78"], "10.0.0.78"),
        ("", ["10.0.0.78", "10.0.0.11"], "10.0.0.11"),
        ("", ["192.168.1.1"], "10.0.0.11"),
        ("", ["10.0.0.12"], "10.0.0.11"),  # another machine's
        ("", [], "10.0.0.11"),
    ],
)
def test_an_address_is_that_of_the_lease_then_the_reported_then_the_given(lease, reported, expected):
    assert provider.address_of("10.0.0.11", "24", ["10.0.0.11", "10.0.0.12"], lease, reported) == expected


def test_room_is_counted_while_machines_are_placed():
    with pytest.raises(Capacity, match="b has most, 100 MB after 1 of 2"):
        provider.place({"n1": 300, "n2": 300}, {"a": 50, "b": 400}, {"a": 0, "b": 0}, "memory")


class Kvm(Hypervisor):
    """A hypervisor that offers KVM, where a trial machine ends by itself, or doesn't."""

    works = True

    def capabilities(self):
        return "<capabilities><guest><arch name='x86_64'><domain type='kvm'/></arch></guest></capabilities>"

    def run_to_end(self, xml):
        assert '<domain type="kvm">' in xml
        name = xml.partition("<name>")[2].partition("</name>")[0]
        if not self.works:
            self._connection.createXML(NODE.format(name), 0)

    def define(self, xml):
        self.seen = xml
        super().define(xml.replace(' type="kvm"', ' type="test"', 1))


@pytest.mark.parametrize("works", [True, False])
def test_kvm_is_used_where_a_kernel_comes_up_under_it(image, works):
    hypervisor = Kvm("qemu:///system")
    hypervisor.works = works
    spec = spec_of(image, libvirt={"accelerator": "auto"})
    machines = provider_of(hypervisor)
    machines.apply(plan(machines.desired(spec), machines.discover("lab")))
    assert (' type="kvm"' in hypervisor.seen) is works
    assert ("host-passthrough" in hypervisor.seen) is works
    assert [("KVM doesn't work" in warning) for warning in machines.warnings] == ([] if works else [True])
    assert not any(name.startswith("turnkey-probe") for name in everything(hypervisor)["domains"])


def test_hypervisors_that_do_not_answer_are_all_named():
    def connect(uri):
        raise HpcError(f"hypervisor {uri} can't be reached.")

    given = {"hypervisors": ["qemu+ssh://hv1/system", "qemu+ssh://hv2/system"]}  # an inventory says no more
    with pytest.raises(HpcError, match=r"(?s)hv1.*hv2"):
        provider.LibvirtProvider.connect(given, no_route, connect)
