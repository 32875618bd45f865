# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _preflight
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput

REQUIREMENTS = _preflight.Requirements(
    supported_releases=["Debian 12", "Debian 13"],
    min_python="3.9",
    min_cores=2,
    min_memory_mb=3800,
    min_disk_gb=10,
    max_clock_skew_seconds=5,
    network="10.20.0.0/24",
    address="10.20.0.11",
)
ACCOUNT = {
    "name": "alice",
    "uid": 2001,
    "gid": 2001,
    "uid_of_name": None,
    "name_of_uid": None,
    "gid_of_group": None,
    "group_of_gid": None,
}


def survey(**changes):
    """Return the survey of a host on which all is well, but for ``changes``."""
    good = {
        "os": {"name": "Debian", "version": "12"},
        "python": "3.11.2",
        "cores": 2,
        "memory_mb": 3800,
        "disks": [{"paths": ["/", "/var"], "free_mb": 10240}],
        "interfaces": {"lo": ["127.0.0.1/8"], "eth0": ["10.20.0.11/24"], "eth1": []},
        "host_name": "localhost",
        "user": {"name": "joe", "uid": 1000},
        "sudo": "ok",
        "accounts": [ACCOUNT],
        "clock_skew": 0.0,
        "seconds": 0.1,
        "clock": 1000.0,
    }
    return {**good, **changes}


def account(**changes):
    return {"accounts": [{**ACCOUNT, **changes}]}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"os": {"name": "Debian", "version": "13"}},
        {"memory_mb": None},
        {"clock_skew": 5.0},
        {"clock_skew": -5.0},
        {"user": {"name": "root", "uid": 0}, "sudo": "ok"},
        account(uid_of_name=2001, name_of_uid="alice", gid_of_group=2001, group_of_gid="alice"),
    ],
)
def test_a_host_that_meets_the_requirements_has_no_problems(changes):
    assert _preflight.find_problems(survey(**changes), REQUIREMENTS) == []


@pytest.mark.parametrize(
    ("changes", "check", "problem", "remedy"),
    [
        ({"python": "3.8.10"}, "python", "Python is 3.8.10, 3.9 or newer", "ansible_python_interpreter"),
        ({"os": {"name": "Debian", "version": "11"}}, "os", "runs Debian 11, supported: Debian 12", "preflight_supp"),
        ({"os": {"name": "", "version": ""}}, "os", "runs an unknown system", "install a supported release"),
        ({"cores": 1}, "cores", "1 core, at least 2", "preflight_min_cores"),
        ({"memory_mb": 3799}, "memory", "3799 MB of memory, at least 3800", "preflight_min_memory_mb"),
        ({"disks": [{"paths": ["/var"], "free_mb": 5120}]}, "disk", "5.0 GB free on /var", "preflight_min_disk_gb"),
        ({"sudo": "missing"}, "sudo", "not installed, and the login user is joe", "install sudo, or log in as root"),
        ({"sudo": "password_required"}, "sudo", "wants a password of joe, and none", "--ask-become-pass"),
        ({"sudo": "wrong_password"}, "sudo", "refuses the become password of joe", "the right become password"),
        ({"sudo": "not_allowed"}, "sudo", "joe may not use sudo", "NOPASSWD"),
        ({"sudo": "failed", "sudo_error": "broken"}, "sudo", "fails for joe: broken", "make `sudo true` work"),
        ({"interfaces": None}, "interface", "can't be read", "install iproute2"),
        ({"interfaces": {"lo": []}}, "address", "no interface has cluster_address 10.20.0.11; there are none", "set"),
        ({"interfaces": {"e0": ["10.20.0.9/24"]}}, "address", "there are e0 (10.20.0.9/24)", "set cluster_address"),
        ({"clock_skew": 61.2}, "clock", "at least 61 s ahead of the control node's, 5 s allowed", "chrony"),
        ({"clock_skew": -3600.0}, "clock", "at least 3600 s behind the control node's", "chrony"),
        (account(uid_of_name=1000), "accounts", "user 'alice' has uid 1000 here", "set uid: 1000"),
        (account(name_of_uid="bob"), "accounts", "uid 2001 of 'alice' in cluster_users belongs to user 'bob'", "give"),
        (account(gid_of_group=5), "accounts", "group 'alice' has gid 5 here", "set gid: 5"),
        (
            account(group_of_gid="staff"),
            "accounts",
            "gid 2001 of 'alice' in cluster_users belongs to group 'st",
            "give",
        ),
    ],
)
def test_each_shortcoming_is_one_problem_with_value_and_remedy(changes, check, problem, remedy):
    (found,) = _preflight.find_problems(survey(**changes), REQUIREMENTS)
    assert found.id == check
    assert problem in found.problem
    assert remedy in found.remedy


@pytest.mark.parametrize(("domain", "expected"), [("", ["disk"]), ("demo.internal", [])])
def test_a_host_that_is_a_node_already_needs_less_free_space(domain, expected):
    requirements = dataclasses.replace(REQUIREMENTS, min_disk_configured_gb=1)
    node = survey(disks=[{"paths": ["/"], "free_mb": 2048}], earlier={"domain": domain, "authority": ""})
    assert [problem.id for problem in _preflight.find_problems(node, requirements)] == expected
    full = {**node, "disks": [{"paths": ["/"], "free_mb": 512}]}
    (problem,) = _preflight.find_problems(full, requirements)
    assert problem.remedy.endswith("preflight_min_disk_configured_gb" if domain else "preflight_min_disk_gb")


def test_a_taken_uid_and_the_equal_gid_of_its_group_are_told_once():
    changes = account(name_of_uid="bob", group_of_gid="bob")
    (found,) = _preflight.find_problems(survey(**changes), REQUIREMENTS)
    assert "user 'bob'" in found.problem


@pytest.mark.parametrize(
    ("requirement", "check", "problem"),
    [
        (
            {"interface": "ib0"},
            "interface",
            "there is no interface ib0; there are eth0 (10.20.0.11/24), eth1 (no address)",
        ),
        ({"interface": "eth1"}, "interface", "eth1 has no address, nothing in cluster_network 10.20.0.0/24"),
        ({"interface": "lo"}, "interface", "interface lo has 127.0.0.1/8"),
        ({"address": ""}, "address", "has no cluster_address"),
        ({"address": "node1"}, "address", "'node1' is no IPv4 address"),
        ({"address": "10.20.0.12"}, "address", "no interface has cluster_address 10.20.0.12"),
        ({"network": "10.20.0.1/24"}, "address", "has host bits set"),
        ({"network": "10.30.0.0/24"}, "address", "10.20.0.11 is outside of cluster_network 10.30.0.0/24"),
    ],
)
def test_an_interface_or_address_that_does_not_fit_is_told(requirement, check, problem):
    (found,) = _preflight.find_problems(survey(), dataclasses.replace(REQUIREMENTS, **requirement))
    assert found.id == check
    assert problem in found.problem


def test_a_given_interface_in_the_network_is_enough():
    requirements = dataclasses.replace(REQUIREMENTS, interface="eth0", address="192.0.2.1")
    assert _preflight.find_problems(survey(), requirements) == []


def test_all_problems_of_a_host_are_found_at_once():
    found = _preflight.find_problems(survey(cores=1, memory_mb=1, sudo="missing", clock_skew=9.0), REQUIREMENTS)
    assert [problem.id for problem in found] == ["sudo", "cores", "memory", "clock"]


@pytest.mark.parametrize(
    ("started", "ended", "clock", "seconds", "skew"),
    [
        (100.0, 101.0, 100.8, 0.1, 0.0),
        (100.0, 101.0, 101.5, 0.1, 0.5),
        (100.0, 101.0, 90.0, 0.5, -10.5),
        # What a slow login may explain is no skew.
        (100.0, 130.0, 101.0, 0.1, 0.0),
        (100.0, 130.0, 160.0, 0.1, 30.0),
        # A control node whose clock was set back meanwhile must not give nonsense.
        (100.0, 100.0, 100.0, 5.0, 0.0),
    ],
)
def test_clock_skew_is_what_the_round_trip_can_not_explain(started, ended, clock, seconds, skew):
    assert _preflight.clock_skew(started, ended, clock, seconds) == pytest.approx(skew)


@pytest.mark.parametrize(
    ("rc", "error", "password_given", "state"),
    [
        (0, "", False, "ok"),
        (0, "a warning", True, "ok"),
        (127, "sh: 1: sudo: not found", False, "missing"),
        (1, "sudo: a password is required", False, "password_required"),
        (
            1,
            "Sorry, try again.\nsudo: no password was provided\nsudo: 1 incorrect password attempt",
            True,
            "wrong_password",
        ),
        (1, "joe is not in the sudoers file.", True, "not_allowed"),
        (1, "Sorry, user joe is not allowed to execute '/bin/true' as root on n1.", True, "not_allowed"),
        (1, "Sorry, user joe may not run sudo on n1.", False, "not_allowed"),
        (1, "sudo: /etc/sudoers is world writable", False, "failed"),
    ],
)
def test_the_outcome_of_sudo_is_told_apart(rc, error, password_given, state):
    assert _preflight.judge_sudo(rc, error, password_given) == state


@pytest.mark.parametrize(
    ("message", "problem", "remedy"),
    [
        (
            'Task failed: Data could not be sent to remote host "10.0.0.1". Make sure this host can be reached '
            "over ssh: ssh: connect to host 10.0.0.1 port 22: No route to host\r\n",
            "can't be reached: ssh: connect to host 10.0.0.1 port 22: No route to host",
            "check that the machine runs",
        ),
        (
            "Failed to connect to the host via ssh: Warning: noise\nroot@n1: Permission denied (publickey).",
            "login is refused: root@n1: Permission denied (publickey)",
            "check ansible_user",
        ),
        (
            "Failed to connect to the host via ssh: No ED25519 host key is known\nHost key verification failed.",
            "the host key is not the known one: Host key verification failed",
            "known_hosts",
        ),
        ("", "can't be reached: no reason given", "check that the machine runs"),
    ],
)
def test_a_failed_connection_becomes_an_entry_with_its_reason(message, problem, remedy):
    found = _preflight.explain_connection_error(message)
    assert (found.id, found.problem) == ("reachable", problem)
    assert remedy in found.remedy


@pytest.mark.parametrize(
    ("probe", "check", "problem"),
    [
        ("", "python", "/usr/bin/python3 doesn't run"),
        ("Python 3.7.3\n", "python", "Python is 3.7.3, 3.9 or newer is wanted"),
        ("Python 3.11.2\n", "survey", "the survey failed: no space left on device"),
    ],
)
def test_a_module_that_failed_is_traced_to_python_if_that_is_the_cause(probe, check, problem):
    found = _preflight.explain_module_failure("no space left\non device", "/usr/bin/python3", probe, "3.9")
    assert (found.id, found.problem) == (check, problem)


@pytest.mark.parametrize(
    ("users", "accounts"),
    [
        ([], []),
        ([{"name": "a", "uid": "2001"}], [{"name": "a", "uid": 2001, "gid": 2001}]),
        ([{"name": "a", "uid": 2001, "gid": 50}], [{"name": "a", "uid": 2001, "gid": 50}]),
        ([{"name": "a", "uid": 2001, "state": "absent"}], []),
        ([{"name": "a"}, {"uid": 5}, {"name": "b", "uid": "x"}], []),
    ],
)
def test_only_accounts_that_will_exist_are_looked_for(users, accounts):
    assert _preflight.wanted_accounts(users) == accounts


@pytest.mark.parametrize(
    ("addresses", "expected"),
    [
        ({"head": "10.0.0.1", "node1": "10.0.0.2"}, {}),
        ({"a": "", "b": ""}, {}),
        ({"a": "10.0.0.1", "b": "10.0.0.1"}, {"a": ["address"], "b": ["address"]}),
        ({"node_1": "10.0.0.1"}, {"node_1": ["host_name"]}),
        ({"Node1": "10.0.0.1", "node1": "10.0.0.2"}, {"Node1": ["host_name"], "node1": ["host_name"]}),
    ],
)
def test_names_and_addresses_are_compared_between_hosts(addresses, expected):
    found = _preflight.find_shared_problems(addresses)
    assert {host: [problem.id for problem in problems] for host, problems in found.items()} == expected


MEMORY = _preflight.Problem("memory", "1968 MB of memory, at least 3800 MB wanted", "give it more memory")
CLOCK = _preflight.Problem("clock", "the clock is at least 60 s behind", "set the clock")


def test_a_report_without_problems_is_quiet():
    assert _preflight.build_report({"head": [], "node1": []}) == _preflight.Report(False, "")


def test_the_same_problem_on_many_hosts_is_one_line_with_a_folded_host_list():
    problems = {"head": [], **{f"node{number}": [MEMORY, MEMORY] for number in (10, 1, 2, 3)}, "gpu1": [CLOCK]}
    report = _preflight.build_report(problems)
    assert report.failed
    assert report.text.splitlines() == [
        "Preflight found 2 problems on 5 of 6 hosts. Nothing was changed.",
        "",
        "HOSTS                   CHECK       PROBLEM                                     REMEDY",
        "node[1-3,10]            memory      1968 MB of memory, at least 3800 MB wanted  give it more memory",
        "gpu1                    clock       the clock is at least 60 s behind           set the clock",
        "",
        "Solve them and run again. preflight_ignore: [CHECK, ...] skips checks.",
    ]


def test_an_ignored_check_does_not_fail_the_run_and_is_named():
    report = _preflight.build_report({"node1": [MEMORY]}, ["clock", "memory"])
    assert not report.failed
    assert "Skipped because of preflight_ignore: memory, clock." in report.text
    assert "1968 MB of memory" in report.text


def test_an_ignored_check_does_not_hide_the_others():
    report = _preflight.build_report({"node1": [MEMORY, CLOCK]}, ["memory"])
    assert report.failed
    assert report.text.startswith("Preflight found 1 problem on 1 of 1 host.")


def test_an_unknown_check_to_ignore_is_refused_with_the_nearest_name():
    with pytest.raises(InvalidInput, match=r"'memry', which is no check\. Remedy: did you mean 'memory'"):
        _preflight.build_report({}, ["memry"])


def test_hosts_with_names_that_no_host_list_can_hold_are_reported_too():
    assert "bad name" in _preflight.build_report({"bad name": [MEMORY]}).text


def test_no_line_of_the_report_is_wider_than_a_terminal():
    long = _preflight.Problem("disk", "word " * 60, "remedy " * 60)
    text = _preflight.build_report({f"n{number}x": [long] for number in range(50)}).text
    assert max(len(line) for line in text.splitlines()) <= 120
