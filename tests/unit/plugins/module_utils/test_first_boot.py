# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._first_boot import (
    Seed,
    SeedError,
    apply,
    entropy_request,
    files_of,
    grows,
    parse_seed,
    renew_entropy,
    seconds_of,
    seed_device,
    wait,
)

NETWORK = {
    "version": 2,
    "ethernets": {
        "eth0": {
            "match": {"macaddress": "52:54:0a:61:0c:0a"},
            "dhcp4": False,
            "addresses": ["10.97.12.10/24"],
            "routes": [{"to": "0.0.0.0/0", "via": "10.97.12.1"}],
            "nameservers": {"addresses": ["10.97.12.1"]},
        }
    },
}
SEED = {
    "meta-data": json.dumps({"instance-id": "i-1", "local-hostname": "node1"}),
    "user-data": "#cloud-config\n" + json.dumps({"users": [], "ssh_authorized_keys": ["ssh-ed25519 AAAA operator"]}),
    "network-config": json.dumps(NETWORK),
}


def test_a_seed_gives_name_keys_and_a_static_address():
    seed = parse_seed(SEED)
    files = files_of(seed)
    assert seed.instance == "i-1"
    assert files["etc/hostname"] == ("node1\n", 0o644)
    assert files["root/.ssh/authorized_keys"] == ("ssh-ed25519 AAAA operator\n", 0o600)
    assert files["etc/resolv.conf"][0] == "nameserver 10.97.12.1\n"
    lines = files["etc/systemd/network/10-eth0.network"][0].splitlines()
    assert lines[:2] == ["[Match]", "MACAddress=52:54:0a:61:0c:0a"]
    assert "Address=10.97.12.10/24" in lines
    assert lines[-2:] == ["Destination=0.0.0.0/0", "Gateway=10.97.12.1"]
    assert "DHCP=ipv4" not in lines


def test_an_interface_without_an_address_asks_for_one():
    config = json.dumps({"version": 2, "ethernets": {"eth0": {"dhcp4": True}}})
    text = parse_seed({**SEED, "network-config": config}).network["etc/systemd/network/10-eth0.network"]
    assert "Name=eth0\n" in text
    assert "DHCP=ipv4\n" in text


def test_a_default_route_is_one_to_everywhere():
    ethernets = {"eth0": {"addresses": ["10.0.0.2/24"], "routes": [{"to": "default", "via": "10.0.0.1"}]}}
    config = json.dumps({"version": 2, "ethernets": ethernets})
    text = parse_seed({**SEED, "network-config": config}).network["etc/systemd/network/10-eth0.network"]
    assert text.splitlines()[-2:] == ["Destination=0.0.0.0/0", "Gateway=10.0.0.1"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("meta-data", "instance-id: i-1\n", "meta-data of the seed is not JSON"),
        ("meta-data", json.dumps({"local-hostname": "node1"}), "no instance-id"),
        ("meta-data", json.dumps({"instance-id": "i-1"}), "host name ''"),
        ("meta-data", json.dumps({"instance-id": "i-1", "local-hostname": "../etc"}), "host name '../etc'"),
        ("user-data", "#cloud-config\n[]", "user-data of the seed is not a JSON object"),
        ("vendor-data", "#cloud-config\npackages: [vim]\n", "vendor-data of the seed is no program"),
    ],
)
def test_a_seed_that_cannot_be_used_is_refused_with_the_reason(name, text, message):
    with pytest.raises(SeedError, match=message):
        parse_seed({**SEED, name: text})


def test_the_program_of_the_site_is_for_root_alone(tmp_path):
    assert apply(parse_seed({**SEED, "vendor-data": "#!/bin/sh\ntrue\n"}), tmp_path)
    program = tmp_path / "var/lib/turnkey-machine/site-program"
    assert program.read_text() == "#!/bin/sh\ntrue\n"
    assert program.stat().st_mode & 0o777 == 0o700
    assert program.parent.stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "root/.ssh").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "etc/systemd/network").stat().st_mode & 0o777 == 0o755


def test_a_machine_that_is_what_the_seed_says_is_left_alone(tmp_path):
    assert apply(parse_seed(SEED), tmp_path)
    (tmp_path / "etc/hostname").write_text("renamed\n")
    assert not apply(parse_seed(SEED), tmp_path)
    assert (tmp_path / "etc/hostname").read_text() == "renamed\n"


def test_a_copied_disk_keeps_nothing_of_who_it_was(tmp_path):
    apply(parse_seed(SEED), tmp_path)
    key = tmp_path / "etc/ssh/ssh_host_ed25519_key"
    key.parent.mkdir()
    key.write_text("secret")
    (tmp_path / "etc/machine-id").write_text("0" * 32 + "\n")
    assert apply(Seed("i-2", "node2"), tmp_path)
    assert not key.exists()
    assert not (tmp_path / "root/.ssh/authorized_keys").exists()
    assert not list((tmp_path / "etc/systemd/network").iterdir())
    assert (tmp_path / "etc/machine-id").read_text() != "0" * 32 + "\n"
    assert len((tmp_path / "etc/machine-id").read_text()) == 33


def test_what_was_cut_off_is_done_again(tmp_path):
    seed = parse_seed(SEED)
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/systemd").write_text("in the way")
    with pytest.raises(OSError, match="systemd"):
        apply(seed, tmp_path)
    (tmp_path / "etc/systemd").unlink()
    assert apply(seed, tmp_path)
    assert (tmp_path / "etc/systemd/network/10-eth0.network").exists()


def test_the_seed_is_found_by_its_label(tmp_path):
    for name, label in (("vda", b"root"), ("vdb", b"CIDATA"), ("vdc", b"")):
        (tmp_path / "sys" / name).mkdir(parents=True)
        (tmp_path / name).write_bytes(bytes(0x8028) + label.ljust(32))
    (tmp_path / "sys/loop0").mkdir()
    assert seed_device(tmp_path / "sys", tmp_path) == tmp_path / "vdb"
    (tmp_path / "vdb").unlink()
    assert seed_device(tmp_path / "sys", tmp_path) is None


@pytest.mark.parametrize(("disk", "wanted"), [(8 << 30, False), (20 << 30, True)])
def test_a_file_system_grows_to_a_larger_disk_only(disk, wanted):
    assert grows(disk, int((8 << 30) * 0.98)) is wanted


def test_a_machine_that_waits_says_so_once_and_goes_on_when_there_is_a_seed(tmp_path):
    answers = iter([None, None, tmp_path / "vdb"])
    console = tmp_path / "console"
    assert wait(lambda: next(answers), console, lambda *_argv: None) == tmp_path / "vdb"
    assert console.read_text() == "\nTURNKEY-WAITING\n"


def test_the_disk_of_a_template_is_that_of_somebody_else(tmp_path):
    (tmp_path / "var/lib/turnkey-machine").mkdir(parents=True)
    (tmp_path / "var/lib/turnkey-machine/instance-id").write_text("template\n")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/machine-id").write_text("of the template\n")
    seed = tmp_path / "var/lib/systemd/random-seed"
    seed.parent.mkdir()
    seed.touch()
    assert apply(parse_seed(SEED), tmp_path)
    assert len((tmp_path / "etc/machine-id").read_text()) == 33
    assert not seed.exists()


def test_random_numbers_are_given_to_the_kernel_with_their_count_of_bits():
    assert entropy_request(b"abcd") == bytes([32, 0, 0, 0, 4, 0, 0, 0]) + b"abcd"


def test_the_hardwares_clock_counts_months_from_zero_and_years_from_1900():
    assert seconds_of((56, 34, 12, 22, 10, 126, 0, 0, 0)) == 1795350896


def test_the_kernel_gets_all_that_is_fresh_and_a_source_that_dries_up_is_an_error(tmp_path):
    source, calls = tmp_path / "hwrng", []
    source.write_bytes(bytes(range(256)) * 17)

    def ioctl(_file, request, *argument):
        calls.append((request, *argument))

    renew_entropy(tmp_path / "random", source, ioctl)
    assert b"".join(call[1][8:] for call in calls[:-1]) == bytes(range(256)) * 16
    assert {call[0] for call in calls[:-1]} == {0x40085203}
    assert calls[-1] == (0x5207,)
    source.write_bytes(b"few")
    with pytest.raises(OSError, match="gave 3 bytes, and 4096 are needed"):
        renew_entropy(tmp_path / "random", source, ioctl)
