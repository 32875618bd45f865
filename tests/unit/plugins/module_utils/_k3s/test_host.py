# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s import host as module
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.host import (
    Host,
    Unit,
    decide,
    find_host_problems,
    fingerprint,
    parse_unit,
    secret_in,
)

SHOWN = "LoadState=loaded\nUnitFileState=enabled\nActiveState={}\nSubState={}\nNRestarts={}\nNeedDaemonReload=no\n"
CGROUPS = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n" + "".join(
    f"{name}\t1\t1\t1\n" for name in ("cpu", "cpuset", "memory", "pids")
)
RUNS = Unit(exists=True, enabled=True, active="active")


@pytest.mark.parametrize(
    ("unit", "wanted", "running", "verbs"),
    [
        (RUNS, "x", "x", []),
        (RUNS, "x", "y", ["daemon-reload", "restart"]),
        (Unit(exists=True), "x", "", ["daemon-reload", "enable", "start"]),
        (Unit(exists=True, enabled=True, active="failed"), "x", "x", ["daemon-reload", "start"]),
        # An agent that waits for its server gets what is new, and is else left to wait.
        (Unit(exists=True, enabled=True, active="activating"), "x", "y", ["daemon-reload", "restart"]),
        (Unit(exists=True, enabled=True, active="activating"), "x", "x", []),
        (Unit(exists=True, enabled=True, active="active", stale=True), "x", "x", ["daemon-reload"]),
    ],
)
def test_it_is_restarted_only_if_what_it_runs_with_has_changed(unit, wanted, running, verbs):
    assert decide(unit, wanted, running) == verbs


def test_the_fingerprint_changes_with_every_file_and_when_one_is_missing(tmp_path):
    paths = [tmp_path / "a", tmp_path / "b"]
    seen = set()
    for contents in (("1", "2"), ("1", "3"), ("2", "2")):
        for path, content in zip(paths, contents):
            path.write_text(content)
        seen.add(fingerprint(map(str, paths)))
    paths[1].unlink()
    seen.add(fingerprint(map(str, paths)))
    assert len(seen) == 4
    assert fingerprint(map(str, paths)) in seen


@pytest.mark.parametrize(
    ("v1", "v2", "missing"),
    [
        (CGROUPS, "", None),
        ("", "cpuset cpu io memory hugetlb pids rdma", None),
        (CGROUPS.replace("memory\t1\t1\t1", "memory\t0\t1\t0"), "", "memory"),
        ("", "cpu io", "cpuset, memory, pids"),
    ],
)
def test_a_kernel_without_the_cgroups_of_containers_is_named_with_what_to_boot_with(v1, v2, missing):
    problems = find_host_problems(v1, v2)
    assert (problems == []) if missing is None else (missing in problems[0] and "cgroup_enable=" in problems[0])


def test_an_interface_that_is_not_there_is_told_with_those_that_are(monkeypatch):
    monkeypatch.setattr(module.socket, "if_nameindex", lambda: [(1, "lo"), (2, "eth0"), (3, "eth1")])
    host = Host(lambda _argv, _stdin: (0, "", ""))
    assert host.problems("eth1") == host.problems()
    (told,) = set(host.problems("eth7")) - set(host.problems())
    assert told == "There is no interface eth7 here, only eth0, eth1. Remedy: correct k3s_interface."


@pytest.mark.parametrize("token", ["secret", f"K10{'0' * 64}::server:secret", f"K10{'0' * 64}::node:secret\n"])
def test_the_secret_is_the_same_in_a_short_and_in_a_full_token(token):
    assert secret_in(token) == "secret"


def make(answers, tmp_path=Path("/nowhere")):
    """Make a host where programs answer by the first word that fits; what is asked is noted."""
    asked = []

    def run(argv, stdin=None):
        asked.append(argv)
        for words, answer in answers.items():
            if words in " ".join(argv):
                return answer if isinstance(answer, tuple) else (0, answer.pop(0) if len(answer) > 1 else answer[0], "")
        return 1, "", "unexpected"

    return Host(run, str(tmp_path)), asked


def nodes(**voters):
    def node(name, voter):
        conditions = [{"type": "Ready", "status": "True"}, {"type": "EtcdIsVoter", "status": str(voter)}]
        return {
            "metadata": {"name": name},
            "status": {"conditions": conditions, "nodeInfo": {"kubeletVersion": "v1.34.2+k3s1"}},
        }

    return json.dumps({"items": [node(*item) for item in voters.items()]})


def test_a_server_is_well_when_the_api_is_ready_and_it_votes():
    answers = {"systemctl": (0, SHOWN.format("active", "running", 0), ""), "/readyz": (0, "ok", "")}
    host, _asked = make({**answers, "get nodes": (0, nodes(s1=True, s2=True), "")})
    assert host.unready("server", "s1", "v1.34.2+k3s1") == ""
    assert "runs v1.34.2+k3s1, not v1.35.0+k3s1" in host.unready("server", "s1", "v1.35.0+k3s1")
    assert host.unready("server", "s3", "v1.34.2+k3s1") == "there is no node s3"
    host, _asked = make({**answers, "get nodes": (0, nodes(s1=False, s2=True), "")})
    assert host.unready("server", "s1", "v1.34.2+k3s1") == "s1 is a learner of etcd, not yet a voter"


def test_an_active_unit_whose_api_does_not_answer_is_not_well():
    host, _asked = make({"systemctl": (0, SHOWN.format("active", "running", 0), "")})
    assert "the API is not ready" in host.unready("server", "s1", "v1.34.2+k3s1")


def test_an_agent_whose_server_is_down_is_given_up_at_the_deadline_with_its_last_words():
    unit = SHOWN.format("activating", "start", 0)
    host, _asked = make({"systemctl": (0, unit, ""), "journalctl": (0, "failed to get CA certs", "")})
    with pytest.raises(HpcError, match=r"activating \(start\)(.|\n)*failed to get CA certs"):
        host.wait("agent", "n1", "v1.34.2+k3s1", 10, clock=iter(range(0, 1000, 11)).__next__)


def test_a_service_that_ends_again_and_again_is_not_waited_for_until_the_deadline():
    shown = [SHOWN.format("activating", "auto-restart", restarts) for restarts in (0, 0, 9, 9)]
    host, _asked = make({"systemctl": shown, "journalctl": (0, "flag provided but not defined: -flanel", "")})
    with pytest.raises(HpcError, match="it ended 4 times"):
        host.wait("agent", "n1", "v1.34.2+k3s1", 3600)


def test_no_start_waits_for_systemd():
    host, asked = make({"systemctl": (0, "", "")})
    host.act("agent", ["daemon-reload", "enable", "start", "restart", "stop"])
    assert asked == [
        ["systemctl", "daemon-reload"],
        ["systemctl", "enable", "k3s-agent.service"],
        ["systemctl", "--no-block", "start", "k3s-agent.service"],
        ["systemctl", "--no-block", "restart", "k3s-agent.service"],
        ["systemctl", "stop", "k3s-agent.service"],
    ]


def test_a_file_that_arrives_damaged_never_takes_its_place(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RECORDS", tmp_path / "turnkey/k3s.json")
    host, _asked = make({})
    source, target = tmp_path / "arrived", tmp_path / "bin/k3s"
    source.write_text("changed on the way")
    with pytest.raises(HpcError, match="has not the SHA-256"):
        host.put(str(source), str(target), "0" * 64, 0o755)
    assert not target.exists()
    host.put(str(source), str(target), module.sha256_of(str(source)), 0o755)
    assert target.stat().st_mode & 0o777 == 0o755
    assert [path.name for path in target.parent.iterdir()] == ["k3s"]
    assert host.missing({str(target): module.sha256_of(str(source)), "/nothing": "0"}) == ["/nothing"]


def test_a_server_whose_data_has_another_secret_is_recognised(tmp_path):
    (tmp_path / "server/db/etcd").mkdir(parents=True)
    (tmp_path / "server/token").write_text(f"K10{'5' * 64}::server:theirs\n")
    host, _asked = make({}, tmp_path)
    assert host.look("theirs").secret_fits
    assert host.look("").secret_fits
    assert not host.look("ours").secret_fits
    assert host.look("ours").member
    assert host.ca_sha256() == "5" * 64


def test_a_unit_that_is_unknown_is_not_there():
    assert parse_unit("LoadState=not-found\nActiveState=inactive\nNRestarts=0\n") == Unit()
    assert parse_unit("") == Unit()


def test_a_server_waits_for_others_that_come_back_before_it_refuses_to_stop():
    three = {"s1": True, "s2": False, "s3": True}
    host, _asked = make({"get nodes": [nodes(**three), nodes(**three), nodes(**{**three, "s2": True})]})
    assert host.refuse_stop("s1", 60) == ""
    host, _asked = make({"get nodes": [nodes(**three)]})
    assert "Not well: s2" in host.refuse_stop("s1", 5, clock=iter(range(0, 100, 4)).__next__)


def test_a_server_that_takes_no_connections_is_not_well_though_the_api_still_calls_it_ready():
    listed = json.loads(nodes(s1=True, s2=True, s3=True))
    for number, item in enumerate(listed["items"], 1):
        item["status"]["addresses"] = [{"type": "InternalIP", "address": f"10.0.0.{number}"}]
    host, _asked = make({"get nodes": [json.dumps(listed)]})
    for gone, problem in (("10.0.0.2", "Not well: s2"), ("10.0.0.1", "")):
        host.answers = lambda address, gone=gone: address != gone
        said = host.refuse_stop("s1", 0)
        assert problem in said
        assert bool(said) == bool(problem), "its own address does not count"
