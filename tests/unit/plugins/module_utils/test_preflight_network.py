# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from collections import Counter

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _preflight_network
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._preflight_network import Port, Seen, Surroundings

SSH = Port(22, "tcp", "SSH")
NFS = Port(2049, "tcp", "NFS", ("head",), ("ganesha.nfsd",), ("/etc/ganesha/ganesha.conf",))
TIME = Port(123, "udp", "time", ("head",))
WANTED = Surroundings(
    host="head",
    ports_free=[NFS, TIME],
    kernel_features=["nfs_client"],
    cluster_name="demo",
    domain="demo.lab",
    authority="ssh-ed25519 AAAA",
    authority_dir="/site/.secrets/ssh_ca",
)


def survey(**changes):
    """Return the survey of a host on which all is well, but for ``changes``."""
    good = {
        "kernel": {"nfs_client": True, "nfs_server": True, "container": False},
        "exports": [],
        "earlier": {"domain": "", "authority": ""},
        "own_files": [],
        "listeners": [],
        "missing_packages": [],
        "sources": [],
    }
    return {**good, **changes}


def listener(port=2049, protocol="tcp", program="nginx", user="root", address="0.0.0.0"):
    return {"port": port, "protocol": protocol, "program": program, "user": user, "address": address}


def sources(state, detail, missing=("chrony",)):
    return {"missing_packages": list(missing), "sources": [{"uri": "u", "state": state, "detail": detail}]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"earlier": {"domain": "demo.lab", "authority": "ssh-ed25519 AAAA"}},
        {"earlier": {"domain": "Demo.internal", "authority": ""}},
        # The cluster got another domain.
        {"earlier": {"domain": "old.internal", "authority": "ssh-ed25519 AAAA"}},
        {"listeners": [listener(program="ganesha.nfsd")]},
        {"listeners": [listener(program="")], "own_files": ["/etc/ganesha/ganesha.conf"]},
        {"listeners": [listener(port=2049, protocol="udp"), listener(port=80)]},
        {"sources": [{"uri": "u", "state": "connect", "detail": "x"}]},
        sources("ok", ""),
        sources("skipped", ""),
    ],
)
def test_a_host_with_good_surroundings_has_no_problems(changes):
    assert _preflight_network.find_local_problems(survey(**changes), WANTED) == []


@pytest.mark.parametrize(
    ("changes", "check", "problem", "remedy"),
    [
        (
            {"kernel": {"nfs_client": False, "container": False}},
            "kernel",
            "the running kernel can't mount NFS",
            "nfsv4",
        ),
        ({"kernel": {"nfs_client": False, "container": True}}, "kernel", "kernel of this container", "provided"),
        ({"exports": ["/x is bad. Remedy: mount a disk."]}, "export", "/x is bad", "mount a disk"),
        ({"earlier": {"domain": "old.internal", "authority": ""}}, "leftovers", "old.internal", "reset it"),
        (
            {"earlier": {"domain": "demo.lab", "authority": "ssh-ed25519 BBBB"}},
            "leftovers",
            "not the one in /site/.secrets/ssh_ca",
            "put it back",
        ),
        (
            {"listeners": [listener(), listener(address="::")]},
            "ports_free",
            "nginx of user root listens on port 2049/tcp (NFS)",
            "ss -lnp 'sport = :2049'",
        ),
        ({"listeners": [listener(program="", user="joe")]}, "ports_free", "user joe listens on port", "stop it"),
        ({"listeners": [listener(123, "udp", "kernel")]}, "ports_free", "the kernel listens on port 123/udp", "stop"),
        (sources("dns", "deb.debian.org"), "dns", "deb.debian.org has no address here", "resolv.conf"),
        (
            sources("connect", "a port 80: no answer"),
            "sources",
            "chrony is not installed, and a source of packages fails: a port 80: no answer",
            "/etc/apt",
        ),
        (sources("answer", "x", ["a", "b"]), "sources", "a and b are not installed", "Acquire::http::Proxy"),
        (sources("answer", "x", ["a", "b", "c"]), "sources", "a and 2 more packages are not", "firewall"),
        ({"missing_packages": ["a"]}, "sources", "names no source", "sources.list"),
    ],
)
def test_each_shortcoming_is_one_problem_with_value_and_remedy(changes, check, problem, remedy):
    (found,) = _preflight_network.find_local_problems(survey(**changes), WANTED)
    assert found.id == check
    assert problem in found.problem
    assert remedy in found.remedy


def test_without_an_authority_on_the_control_node_there_is_nothing_to_compare():
    earlier = {"earlier": {"domain": "demo.lab", "authority": "ssh-ed25519 BBBB"}}
    assert _preflight_network.find_local_problems(survey(**earlier), Surroundings("n", domain="demo.lab")) == []


@pytest.mark.parametrize(
    ("host", "programs", "told"),
    [
        ("head", ("traefik",), "port 2049/tcp (NFS) is also that of the ingress"),
        ("head", ("ganesha.nfsd",), ""),
        ("node1", ("traefik",), ""),
    ],
)
def test_two_services_of_one_host_that_want_the_same_port_are_told(host, programs, told):
    wanted = Surroundings(host=host, ports_free=[NFS, Port(2049, "tcp", "the ingress", None, programs), TIME])
    found = _preflight_network.find_local_problems(survey(), wanted)
    assert [problem.problem for problem in found] == [told] * bool(told)


def test_a_port_that_another_hosts_service_will_use_may_be_taken_here():
    elsewhere = Surroundings("node1", ports_free=[NFS])
    assert _preflight_network.find_local_problems(survey(listeners=[listener()]), elsewhere) == []


SS = """udp UNCONN 0 0 0.0.0.0:123 0.0.0.0:* users:(("ntpd",pid=7,fd=16))
tcp LISTEN 0 5 [::]:2049 [::]:*
tcp LISTEN 0 5 0.0.0.0:80 0.0.0.0:* users:(("nginx",pid=9,fd=6),("nginx",pid=8,fd=6))
"""


def test_listeners_whose_name_only_root_sees_get_it_from_ss():
    unnamed = survey(listeners=[listener(123, "udp", "", "ntp"), listener(program="")])
    assert _preflight_network.unnamed_listeners(unnamed, WANTED)
    named = _preflight_network.name_listeners(unnamed, _preflight_network.parse_ss(SS))
    assert [each["program"] for each in named["listeners"]] == ["ntpd", "kernel"]
    assert not _preflight_network.unnamed_listeners(named, WANTED)


def test_nobody_is_looked_for_where_nobody_is_in_the_way():
    unnamed = survey(listeners=[listener(80, "tcp", "")])
    assert not _preflight_network.unnamed_listeners(unnamed, WANTED)


def test_ports_are_read_with_their_defaults():
    assert _preflight_network.read_ports("x", [{"port": "22"}, {"port": 5, "hosts": ["", "a"]}]) == [
        Port(22, "tcp", "a service of the cluster"),
        Port(5, "tcp", "a service of the cluster", ("a",)),
    ]


def test_everything_that_is_wrong_with_ports_is_told_at_once():
    entries = [{"port": 70000}, {"port": 1, "protocol": "icmp"}, {"prot": 1}]
    with pytest.raises(InvalidInput) as caught:
        _preflight_network.read_ports("preflight_ports_free", entries)
    for text in ("preflight_ports_free[1]", "'70000'", "'icmp'", "has prot"):
        assert text in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "address"),
    [
        ({"cluster_address": "10.0.0.1", "ansible_host": "192.0.2.1"}, "10.0.0.1"),
        ({"ansible_host": "10.0.0.2"}, "10.0.0.2"),
        ({"ansible_host": "node2.example"}, ""),
        ({}, ""),
    ],
)
def test_the_address_of_another_node_is_what_its_variables_say(variables, address):
    assert _preflight_network.node_address(variables) == address


def tried(host, members, ports=(SSH, NFS, TIME)):
    return [
        f"{probe.peer}:{probe.port.port or 'mtu'}"
        for probe in _preflight_network.plan_probes(host, members, "head", ports)
    ]


@pytest.mark.parametrize(
    ("host", "members", "expected"),
    [
        ("a", ["head", "a", "b"], ["b:22", "head:22", "head:2049", "head:123", "b:mtu", "head:mtu"]),
        ("b", ["head", "a", "b"], ["head:22", "head:2049", "head:123", "head:mtu"]),
        ("head", ["head", "a", "b"], ["a:22", "b:22", "a:mtu"]),
        # With --limit.
        ("a", ["a"], ["head:22", "head:2049", "head:123", "head:mtu"]),
        ("head", ["head"], []),
    ],
)
def test_a_host_tries_the_next_one_the_head_and_the_hosts_of_services(host, members, expected):
    assert tried(host, members) == expected


@pytest.mark.parametrize("count", [2, 10, 1000])
def test_every_host_is_tried_and_the_attempts_grow_with_the_hosts_only(count):
    members = ["head", *(f"n{number}" for number in range(1, count))]
    peers = Counter(
        probe.peer for host in members for probe in _preflight_network.plan_probes(host, members, "head", [SSH])
    )
    assert set(peers) == set(members)
    assert sum(peers.values()) <= 4 * count + _preflight_network.HEAD_TRIES


def probe(state, peer="head", port=22, protocol="tcp", detail=""):
    return {
        "peer": peer,
        "address": {"head": "10.0.0.1", "a": "10.0.0.2"}.get(peer, "10.0.0.9"),
        "port": port,
        "protocol": protocol,
        "service": "SSH",
        "size": 9000,
        "state": state,
        "detail": detail,
    }


HEAD = Seen("10.0.0.1", frozenset({"10.0.0.1", "192.168.0.1"}))


def between(seen, head=HEAD):
    hosts = {"head": head, "a": seen}
    addresses = {"away": "10.0.0.9"}
    found = _preflight_network.find_problems_between(hosts, ["head", "a", "away"], "demo.lab", addresses.__getitem__)
    assert set(found) <= {"a"}
    return found.get("a", [])


def seen(**changes):
    return Seen("10.0.0.2", frozenset({"10.0.0.2"}), **changes)


@pytest.mark.parametrize(
    ("attempt", "head"),
    [
        (probe("open"), HEAD),
        (probe("closed"), HEAD),
        (probe("silent"), Seen("10.0.0.1", lost=True)),
        (probe("closed"), Seen("10.0.0.1", listeners=[listener(22, address="127.0.0.1")])),
        (probe("silent", port=123, protocol="udp"), Seen("10.0.0.1", listeners=[listener(123, "udp")])),
        (probe("silent", peer="away", port=123, protocol="udp"), HEAD),
        (probe("passed", protocol="mtu"), HEAD),
        (probe("unknown", protocol="mtu"), HEAD),
    ],
)
def test_a_way_is_open_unless_something_tells_otherwise(attempt, head):
    assert between(seen(probes=[attempt]), head) == []


@pytest.mark.parametrize(
    ("attempt", "head", "check", "problem"),
    [
        (probe("silent"), HEAD, "ports_open", "no answer from head (10.0.0.1) on port 22/tcp (SSH)"),
        (probe("silent", port=123, protocol="udp"), HEAD, "ports_open", "on port 123/udp (SSH)"),
        (probe("rejected"), HEAD, "ports_open", "a firewall refuses port 22/tcp (SSH) of head (10.0.0.1)"),
        (probe("error", detail="No route to host"), HEAD, "ports_open", "can't be reached: No route to host"),
        # sshd listens, and yet the port is closed.
        (probe("closed"), Seen("10.0.0.1", listeners=[listener(22)]), "ports_open", "a firewall refuses"),
        (probe("too_big", protocol="mtu"), HEAD, "mtu", "9000 bytes don't get to head (10.0.0.1), small ones do"),
        (probe("too_big", protocol="mtu", detail="1500"), HEAD, "mtu", "no more than 1500 bytes do"),
    ],
)
def test_a_way_that_is_not_open_is_told(attempt, head, check, problem):
    (found,) = between(seen(probes=[attempt]), head)
    assert found.id == check
    assert problem in found.problem


def test_ports_that_are_closed_in_the_same_way_are_one_problem():
    (found,) = between(seen(probes=[probe("silent"), probe("silent", port=2049)]))
    assert "no answer from head (10.0.0.1) on ports 22/tcp (SSH), 2049/tcp (SSH)" in found.problem


def test_a_silent_host_outside_of_the_run_may_be_off():
    (found,) = between(seen(probes=[probe("silent", peer="away")]))
    assert found.remedy.startswith("check that away runs")


def line(address, *names):
    return {"address": address, "names": list(names)}


@pytest.mark.parametrize(
    "changes",
    [
        {"hosts_file": [line("127.0.0.1", "localhost"), line("10.0.0.1", "head"), line("8.8.8.8", "stranger")]},
        # An address of the head in another network.
        {"hosts_file": [line("192.168.0.1", "head")], "resolved": {"head": ["192.168.0.1"]}},
        # The role baseline puts the host's own lines aside.
        {"hosts_file": [line("192.0.2.1", "a")], "resolved": {"a": ["192.0.2.1"]}},
        {"resolved": {"a": ["127.0.1.1"], "head": [], "away": None}},
        {"resolved": {"head": ["192.0.2.1", "10.0.0.1"]}},
    ],
)
def test_names_that_lead_to_their_nodes_are_no_problem(changes):
    assert between(seen(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"hosts_file": [line("192.0.2.1", "HEAD", "head.demo.lab")]}, "HEAD is 192.0.2.1 in /etc/hosts, and 10.0.0.1"),
        ({"hosts_file": [line("127.0.1.1", "head")]}, "head is 127.0.1.1 in /etc/hosts"),
        ({"hosts_file": [line("192.0.2.1", "away.demo.lab")]}, "and 10.0.0.9 in the inventory"),
        (
            {"resolved": {"head": ["192.0.2.1", "192.0.2.2"]}},
            "head resolves to 192.0.2.1 and 192.0.2.2, and is 10.0.0.1",
        ),
        ({"resolved": {"a": ["192.0.2.1"]}}, "a resolves to 192.0.2.1, and is 10.0.0.2"),
    ],
)
def test_a_name_that_leads_elsewhere_is_told_once(changes, problem):
    (found,) = between(seen(**changes))
    assert found.id == "names"
    assert problem in found.problem
