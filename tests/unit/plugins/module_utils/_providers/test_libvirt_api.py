# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers import libvirt_api as api
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import (
    Auth,
    Capacity,
    Conflict,
    Exists,
    Invalid,
    NotFound,
)
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.libvirt_xml import pool_xml, reservations_of

native = pytest.importorskip("libvirt", reason="libvirt-python is installed by `tools/setup vm` only")

UUID = "2c1c1b0c-3d0b-4f57-9d2c-0d5e6f1f2a3b"
DOMAIN = """<domain type='test'><name>{name}</name><memory>1024</memory><os><type>hvm</type></os><devices>
  <interface type='network'><mac address='52:54:0a:61:0b:0b'/><source network='n'/></interface></devices></domain>"""
NETWORK = """<network><name>n</name><bridge name='br7'/><ip address='10.97.11.1' prefix='24'>
  <dhcp><range start='10.97.11.20' end='10.97.11.99'/></dhcp></ip></network>"""


@pytest.fixture
def hypervisor(tmp_path):
    (tmp_path / "host.xml").write_text("<node/>")
    return api.Hypervisor("qemu:///system", native.open(f"test://{tmp_path}/host.xml"))


@pytest.fixture
def domain(hypervisor):
    hypervisor._connection.networkDefineXML(NETWORK).create()
    hypervisor.define(DOMAIN.format(name="lab-node1"))
    return hypervisor.domains("lab-")[0]


def test_a_domain_goes_through_its_states_and_every_step_may_be_repeated(hypervisor, domain):
    states = [domain.state]
    for step in (hypervisor.start, hypervisor.start, hypervisor.power_off, hypervisor.power_off):
        step("lab-node1")
        states.append(hypervisor.domains("lab-")[0].state)
    assert states == ["stopped", "running", "running", "stopped", "stopped"]
    hypervisor.start("lab-node1")
    hypervisor._connection.lookupByName("lab-node1").suspend()
    assert hypervisor.domains("lab-")[0].state == "paused"
    hypervisor.start("lab-node1")
    hypervisor.shut_down("lab-node1")
    assert hypervisor.domains("lab-")[0].state == "stopped"


def test_a_saved_domain_is_off_and_goes_on_when_it_is_restored(hypervisor, domain, tmp_path):
    hypervisor.start("lab-node1")
    hypervisor.save("lab-node1", f"{tmp_path}/state")
    assert hypervisor.domains("lab-")[0].state == "stopped"
    hypervisor.restore(f"{tmp_path}/state")
    assert hypervisor.domains("lab-")[0].state == "running"
    with pytest.raises(HpcError, match="could not restore the memory in /no/such/file on qemu:///system"):
        hypervisor.restore("/no/such/file")


def test_a_mark_can_be_changed(hypervisor, domain):
    assert domain.mark == {}
    hypervisor.mark(domain, {"cluster": "lab", "name": "<node1>"})
    assert hypervisor.domains("lab-")[0].mark == {"cluster": "lab", "name": "<node1>"}
    hypervisor.start("lab-node1")
    hypervisor.mark(hypervisor.domains("lab-")[0], {"cluster": "two"})
    assert hypervisor.domains("lab-")[0].mark == {"cluster": "two"}


def test_addresses_are_read_by_mac(hypervisor, domain):
    hypervisor.start("lab-node1")
    (addresses,) = hypervisor.addresses(domain).values()
    assert [address.rpartition(".")[0] for address in addresses] == ["10.97.11"]
    hypervisor.power_off("lab-node1")
    assert hypervisor.addresses(domain) == {}


def test_an_address_is_kept_once_and_given_back(hypervisor, domain):
    def kept():
        return reservations_of(next(network.xml for network in hypervisor.networks() if network.name == "n"))

    entry = {"mac": "52:54:0a:61:0b:0b", "name": "node1", "ip": "10.97.11.11"}
    for found in ({**entry, "ip": "10.97.11.12"}, entry, entry):
        hypervisor.reserve("n", found, first=False)
        assert kept() == [found]
    for _time in range(2):
        hypervisor.release("n", "52:54:0a:61:0b:0b")
    assert kept() == []
    hypervisor.release("gone", "52:54:0a:61:0b:0b")


def test_a_network_without_addresses_to_give_is_left_as_it_is(hypervisor):
    hypervisor._connection.networkDefineXML("<network><name>n</name><bridge name='br7'/></network>")
    hypervisor.reserve("n", {"mac": "52:54:0a:61:0b:0b", "ip": "10.97.11.11"}, first=False)
    assert "host" not in hypervisor.networks()[0].xml


def test_a_pool_and_its_volumes_come_and_go(hypervisor):
    assert hypervisor.pool(UUID) is None
    hypervisor.create_pool(pool_xml("turnkey-lab", UUID, "/p/turnkey-lab"))
    pool = hypervisor.pool(UUID)
    assert (pool.name, pool.path, hypervisor.pool_names()) == ("turnkey-lab", "/p/turnkey-lab", ["turnkey-lab"])
    for _time in range(2):
        pool.create("a", 4096)
    assert pool.names() == ["a"]
    assert pool.capacity_bytes("a") == 4096
    for _time in range(2):
        pool.copy("a", "b")
    assert pool.capacity_bytes("b") == 4096
    pool.remove("b")
    assert pool.download("none", 10) == pool.beginning("none", 10) == b""
    for _time in range(2):
        pool.remove("a")
    pool.delete()
    assert hypervisor.pool_names() == []


def test_what_is_not_there_is_not_found(hypervisor):
    for call in (hypervisor.start, hypervisor.power_off, hypervisor.undefine):
        with pytest.raises(NotFound, match="lab-node1"):
            call("lab-node1")


@pytest.mark.parametrize(
    ("uri", "command"),
    [
        ("qemu:///system", ["ip", "route"]),
        ("qemu+ssh://hv1/system", ["ssh", "-o", "BatchMode=yes", "hv1", "--", "ip route"]),
        ("qemu+ssh://a@hv1:22/system", ["ssh", "-o", "BatchMode=yes", "-p", "22", "a@hv1", "--", "ip route"]),
    ],
)
def test_commands_run_where_the_hypervisor_is(uri, command):
    assert api.Hypervisor(uri, None).on_host(["ip", "route"]) == command


def test_what_the_hypervisor_is_told_by_ssh_is_quoted():
    assert api.Hypervisor("qemu+ssh://hv1/system", None).on_host(["echo", "a; b"])[-1] == "echo 'a; b'"


def test_a_hypervisor_that_does_not_answer_is_one_clear_error(monkeypatch):
    monkeypatch.setattr(native, "open", lambda _uri: native.openAuth("test:///nowhere/host.xml", [[], None, None]))
    with pytest.raises(HpcError, match=r"hypervisor qemu:///system can't be reached.*virsh -c qemu:///system list"):
        api.connect_hypervisor("qemu:///system")


class Native:
    def __init__(self, code, text):
        self.code, self.text = code, text

    def get_error_code(self):
        return self.code

    def __str__(self):
        return self.text


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        (native.VIR_ERR_NO_DOMAIN, "Domain not found", NotFound),
        (native.VIR_ERR_NO_STORAGE_VOL, "no storage vol", NotFound),
        (native.VIR_ERR_SYSTEM_ERROR, "cannot write: No space left on device", Capacity),
        (native.VIR_ERR_INTERNAL_ERROR, "qemu: cannot set up guest memory 'pc.ram': Cannot allocate memory", Capacity),
        (native.VIR_ERR_STORAGE_VOL_EXIST, "exists", Exists),
        (native.VIR_ERR_OPERATION_DENIED, "read only", Auth),
        (native.VIR_ERR_OPERATION_INVALID, "domain is not running", Conflict),
        (native.VIR_ERR_XML_ERROR, "bad", Invalid),
        (native.VIR_ERR_INTERNAL_ERROR, "who knows", HpcError),
    ],
)
def test_errors_get_a_class_by_their_number(code, text, kind):
    found = api.classified(native, Native(code, text), "could not start machine x")
    assert found.__class__.__name__ == kind.__name__
    assert str(found).startswith(f"could not start machine x: {text}.")


def test_a_pool_that_is_off_is_started_by_who_works_in_it_only(hypervisor):
    hypervisor.create_pool(pool_xml("turnkey-lab", UUID, "/p/turnkey-lab"))
    handle = hypervisor._connection.storagePoolLookupByName("turnkey-lab")
    handle.destroy()
    assert hypervisor.pool(UUID, start=False).path == "/p/turnkey-lab"
    assert not handle.isActive()
    assert hypervisor.pool(UUID).names() == []
    assert handle.isActive()


def test_what_could_not_be_made_as_a_whole_is_not_left_by_halves(hypervisor, monkeypatch):
    def refuse(_handle, _on):
        raise native.libvirtError("File exists")

    monkeypatch.setattr(native.virNetwork, "setAutostart", refuse)
    monkeypatch.setattr(native.virStoragePool, "setAutostart", refuse)
    with pytest.raises(HpcError, match="could not make a network on qemu:///system: File exists"):
        hypervisor.create_network(NETWORK)
    with pytest.raises(HpcError, match="could not make a storage pool on qemu:///system: File exists"):
        hypervisor.create_pool(pool_xml("turnkey-lab", UUID, "/p/turnkey-lab"))
    assert (hypervisor.networks(), hypervisor.pool_names()) == ([], [])


@pytest.mark.parametrize("make", ["networkDefineXML", "networkCreateXML"])
def test_a_network_goes_whether_it_is_written_down_or_only_runs_and_so_does_one_that_is_gone(hypervisor, make):
    getattr(hypervisor._connection, make)(NETWORK)
    for _time in range(2):
        hypervisor.remove_network("n")
        assert hypervisor.networks() == []
