# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import json

import pytest
import yaml
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.seed import seed_files, seed_medium

GIVEN = {
    "instance_id": "2c1c1b0c-3d0b-4f57-9d2c-0d5e6f1f2a3b",
    "hostname": "node1",
    "mac": "52:54:0a:61:0b:0b",
    "address": "10.97.11.11/24",
    "gateway": "10.97.11.1",
    "nameservers": ["10.97.11.1"],
    "authorized_keys": ["ssh-ed25519 AAAA op@desk"],
}


def test_the_machine_is_told_who_it_is_and_where():
    files = seed_files(**GIVEN)
    assert sorted(files) == ["meta-data", "network-config", "user-data"]
    assert json.loads(files["meta-data"]) == {"instance-id": GIVEN["instance_id"], "local-hostname": "node1"}
    nic = json.loads(files["network-config"])["ethernets"]["eth0"]
    assert nic["addresses"] == ["10.97.11.11/24"]
    assert nic["routes"] == [{"to": "0.0.0.0/0", "via": "10.97.11.1"}]


def test_cloud_init_reads_it_as_yaml_and_our_images_as_json():
    head, _newline, rest = seed_files(**GIVEN)["user-data"].partition(b"\n")
    assert head == b"#cloud-config"
    assert yaml.safe_load(rest) == json.loads(rest)
    assert json.loads(rest)["ssh_authorized_keys"] == GIVEN["authorized_keys"]


def test_without_a_gateway_there_is_no_route_and_without_servers_no_names():
    nic = json.loads(seed_files(**{**GIVEN, "gateway": "", "nameservers": []})["network-config"])["ethernets"]["eth0"]
    assert not {"routes", "nameservers"} & set(nic)


def test_the_sites_own_part_is_beside_ours_and_not_in_it():
    files = seed_files(**GIVEN, user_data="#!/bin/sh\nhostname evil\n")
    assert files["vendor-data"] == b"#!/bin/sh\nhostname evil\n"
    assert files["user-data"] == seed_files(**GIVEN)["user-data"]


def test_the_medium_holds_the_files_under_their_names():
    pycdlib = pytest.importorskip("pycdlib", reason="pycdlib is installed by `tools/setup vm` only")
    files = seed_files(**GIVEN, user_data="#cloud-config\n{}\n")
    medium = pycdlib.PyCdlib()
    medium.open_fp(io.BytesIO(seed_medium(files)))
    assert medium.pvd.volume_identifier.strip() == b"cidata"
    for name, content in files.items():
        found = io.BytesIO()
        medium.get_file_from_iso_fp(found, rr_path=f"/{name}")
        assert found.getvalue() == content
    medium.close()
