# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.config import COMMON, OWNED, SERVER, build_files

BASE = {
    "part": "server",
    "name": "head",
    "address": "10.0.0.10",
    "interface": "eth0",
    "version": "v1.34.2+k3s1",
    "servers": ["head"],
    "api_address": "",
    "joined": False,
    "join_url": "",
    "join_token": "",
    "token": "s" * 48,
    "agent_token": "a" * 48,
    "etcd": False,
    "tls_sans": [],
    "disable": ["traefik"],
    "flannel_backend": "vxlan",
    "secrets_encryption": True,
    "snapshot_schedule": "0 */12 * * *",
    "snapshot_keep": 5,
    "registries": {},
    "labels": {},
    "taints": [],
    "default_runtime": "",
    "work_dir": "/var/lib/rancher/k3s",
    "extra_config": {},
}
THREE = {"servers": ["head", "s1", "s2"], "etcd": True}
AGENT = {
    "part": "agent",
    "name": "node1",
    "joined": True,
    "join_url": "https://head:6443",
    "join_token": "K10x::node:aaa",
}


def build(**changes):
    return build_files({**BASE, **changes})


def test_the_server_that_founds_a_cluster_has_the_short_token_and_nobody_to_join():
    files = build(**THREE)
    assert (files["config"]["token"], files["config"]["cluster-init"]) == (BASE["token"], True)
    assert "server" not in files["config"]
    assert files["join"] == {}


def test_one_server_alone_has_no_etcd_unless_it_is_asked_for():
    assert "cluster-init" not in build()["config"]
    assert build(etcd=True)["config"]["cluster-init"] is True


def test_how_a_server_joins_is_in_a_file_of_its_own_that_restarts_nothing():
    files = build(**THREE, name="s1", joined=True, join_url="https://head:6443", join_token="K10x::server:sss")
    assert files["join"] == {"server": "https://head:6443", "token": "K10x::server:sss"}
    assert not {"server", "token", "cluster-init"} & set(files["config"])
    member = build(**THREE, name="s1", joined=True)
    assert member["config"] == files["config"], "a server that has joined keeps its configuration"
    assert member["join"] == {}


def test_an_agent_never_holds_what_is_the_servers():
    text = str(build(**AGENT))
    assert BASE["token"] not in text
    assert BASE["agent_token"] not in text, "it has it within the token that pins the CA"
    assert build(**AGENT)["config"]["token"] == "K10x::node:aaa"


def test_an_agent_has_no_key_that_only_servers_know():
    config = build(**AGENT, registries={"mirrors": {"*": {"endpoint": ["https://r:5000"]}}}, default_runtime="nvidia")[
        "config"
    ]
    assert set(config) <= COMMON
    assert config["disable-default-registry-endpoint"] is True


def test_what_all_servers_must_have_in_common_is_the_same_on_all():
    first, second = build(**THREE)["config"], build(**THREE, name="s1", joined=True, address="10.0.0.11")["config"]
    for key in ("agent-token", "disable", "flannel-backend", "secrets-encryption", "tls-san"):
        assert first[key] == second[key], key


def test_the_certificate_of_the_api_has_every_server_and_the_address_of_all():
    config = build(**THREE, api_address="10.0.0.9", tls_sans=["k3s.example.org", "head"])["config"]
    assert config["tls-san"] == ["head", "s1", "s2", "k3s.example.org", "10.0.0.9"]


def test_labels_and_taints_are_in_a_file_that_restarts_nothing_without_those_to_be_removed():
    files = build(labels={"zone": "a", "old": None}, taints=["k:NoSchedule", "x:NoExecute-"])
    assert files["node"] == {"node-label": ["zone=a"], "node-taint": ["k:NoSchedule"]}
    assert files["config"] == build()["config"]


def test_keys_of_the_site_come_last_and_null_removes_one():
    config = build(
        extra_config={"kubelet-arg": ["max-pods=50"], "secrets-encryption": None, "flannel-backend": "none"}
    )["config"]
    assert config["kubelet-arg"] == ["max-pods=50"]
    assert config["flannel-backend"] == "none"
    assert "secrets-encryption" not in config


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"servers": ["a", "b"], "etcd": True},
            "There are 2 servers: a, b. Remedy: add or remove one; etcd needs an odd number",
        ),
        ({"servers": ["a", "b", "c"]}, "k3s_etcd is false with several servers"),
        ({"servers": []}, "There are agents and no server"),
        ({"name": "node_1"}, "The host 'node_1' can't be a node of Kubernetes"),
        ({"token": "short"}, "k3s_token is no secret"),
        ({"token": "K10" + "0" * 64 + "::server:x"}, "k3s_token is no secret"),
        ({"agent_token": BASE["token"]}, "agents must not hold the servers' secret"),
        ({"version": "1.34"}, "k3s_version: '1.34' is no version"),
        ({"extra_config": {"flanel-iface": "eth1"}}, "did you mean flannel-iface?"),
        ({"extra_config": {"token": "x"}}, "k3s_extra_config has token. Remedy: it is set by k3s_token"),
        ({**AGENT, "extra_config": {"tls-san": []}}, "it is set by k3s_tls_sans"),
        ({**AGENT, "extra_config": {"disable": []}}, "k3s doesn't know here"),
        ({"taints": ["gpu"]}, "The taint 'gpu' is none"),
        ({"registries": {"mirror": {}}}, "its keys are mirrors and configs"),
        (
            {"registries": {"mirrors": {"*": {"endpoints": []}}}},
            "has endpoints. Remedy: its keys are endpoint, rewrite",
        ),
        ({"registries": {"mirrors": {"*": {"endpoint": ["http://r"]}}}}, "begin it with https://"),
        ({"registries": {"configs": {"r": {"tls": {"insecure_skip_verify": True}}}}}, "has insecure_skip_verify"),
        ({"registries": {"configs": {"r": {"auth": {"user": "x"}}}}}, "has user. Remedy: its keys are auth,"),
    ],
)
def test_what_can_not_work_is_refused_before_k3s_sees_it(changes, told):
    with pytest.raises(InvalidInput) as caught:
        build(**changes)
    assert told in str(caught.value)


def test_all_that_is_wrong_is_told_at_once_and_no_secret_with_it():
    with pytest.raises(InvalidInput) as caught:
        build(servers=["a", "b"], version="x", token="tooshort", extra_config={"nothing": 1})
    text = str(caught.value)
    assert text.startswith("5 problems:")
    assert "tooshort" not in text


def test_every_key_that_the_role_keeps_for_itself_is_one_of_k3s():
    assert set(OWNED) <= SERVER


def test_interface_runtime_and_snapshots_are_keys_only_where_there_are_such():
    plain, full = build()["config"], build(interface="", default_runtime="nvidia", etcd=True)["config"]
    assert plain["flannel-iface"] == "eth0"
    assert not {"default-runtime", "etcd-snapshot-schedule-cron", "etcd-snapshot-retention"} & set(plain)
    assert "flannel-iface" not in full
    assert full["default-runtime"] == "nvidia"
    assert (full["etcd-snapshot-schedule-cron"], full["etcd-snapshot-retention"]) == ("0 */12 * * *", 5)
