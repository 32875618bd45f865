# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import time
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail, AnsibleConnectionFailure, AnsibleError
from ansible_collections.turnkey.hpc.plugins.action import preflight

ARGUMENTS = {"supported_releases": ["Debian 12"], "network": "10.20.0.0/24", "address": "10.20.0.11"}


def host(uid=0, **changes):
    return {
        "os": {"name": "Debian", "version": "12"},
        "python": "3.11.2",
        "cores": 2,
        "memory_mb": 4000,
        "disks": [],
        "interfaces": {"eth0": ["10.20.0.11/24"]},
        "user": {"name": "joe", "uid": uid},
        "accounts": [],
        "seconds": 0.0,
        "mtu": 1500,
        **changes,
    }


class Action(preflight.ActionModule):
    """The plugin with a host that answers what the test says."""

    def __init__(self, answer, command=None, arguments=None, become_pass=""):
        self.options = {}
        connection = SimpleNamespace(
            _shell=SimpleNamespace(tmpdir=None),
            has_pipelining=True,
            set_option=self.options.__setitem__,
            set_become_plugin=lambda plugin: self.options.update(become=plugin),
        )
        task = SimpleNamespace(async_val=0, check_mode=True, action="preflight", args=dict(arguments or ARGUMENTS))
        super().__init__(
            task,
            connection,
            SimpleNamespace(become_method="sudo", become_pass=become_pass),
            None,
            SimpleNamespace(template=lambda value: value),
        )
        self.answer, self.command = answer, command or {"rc": 0, "stdout": "", "stderr": ""}
        self.modules, self.commands = [], []

    def _execute_module(self, **arguments):
        self.modules.append(arguments)
        if isinstance(self.answer, Exception):
            raise self.answer
        if "survey" in self.answer:
            # Parameters are made long before the test runs: the clock is read now, unless the test sets it.
            self.answer["survey"].setdefault("clock", time.time())
        return self.answer

    def _low_level_execute_command(self, cmd, sudoable=True, in_data=None):
        self.commands.append((cmd, in_data))
        return self.command


def ids(result):
    return [problem["id"] for problem in result["problems"]]


def test_a_good_host_takes_one_module_run_and_no_command():
    action = Action({"survey": host()})
    result = action.run(task_vars={})
    assert (result["problems"], result["changed"], result["address"]) == ([], False, "10.20.0.11")
    assert (len(action.modules), action.commands) == (1, [])


def test_the_survey_runs_without_become_and_without_temporary_files():
    action = Action({"survey": host()})
    action.run(task_vars={"ansible_become": True})
    assert action.options == {"become": None, "pipelining": True}


@pytest.mark.parametrize(
    ("answer", "command", "expected"),
    [
        (AnsibleConnectionFailure("no route to host"), None, ["reachable"]),
        (AnsibleError("strange"), None, ["survey"]),
        ({"failed": True, "msg": "x"}, {"rc": 127, "stdout": ""}, ["python"]),
        ({"failed": True, "msg": "x"}, {"rc": 0, "stdout": "Python 3.11.2"}, ["survey"]),
        ({"survey": host(cores=0)}, None, ["cores"]),
        ({"survey": host(uid=1000)}, {"rc": 1, "stderr": "sudo: a password is required"}, ["sudo"]),
        ({"survey": host(clock=time.time() - 3600)}, None, ["clock"]),
    ],
)
def test_whatever_is_wrong_with_a_host_becomes_data_and_no_failure(answer, command, expected):
    result = Action(answer, command).run(task_vars={})
    assert ids(result) == expected
    assert "failed" not in result


@pytest.mark.parametrize(
    ("variables", "become_pass", "stdin"),
    [
        ({}, "", None),
        ({"ansible_become_password": "one"}, "two", b"one\n"),
        ({"ansible_become_pass": "one"}, "", b"one\n"),
        ({}, "two", b"two\n"),
    ],
)
def test_sudo_gets_the_password_on_its_input_and_never_in_its_arguments(variables, become_pass, stdin):
    action = Action({"survey": host(uid=1000)}, become_pass=become_pass)
    action.run(task_vars=variables)
    ((command, given),) = action.commands
    assert given == stdin
    assert command == f"LC_ALL=C sudo -k {'-S -p ' + repr('') if stdin else '-n'} true"


def test_sudo_is_not_tried_where_another_way_to_become_root_is_used():
    action = Action({"survey": host(uid=1000)})
    assert ids(action.run(task_vars={"ansible_become_method": "doas"})) == []
    assert action.commands == []


def test_a_found_python_is_handed_on_to_later_tasks():
    facts = {"discovered_interpreter_python": "/usr/bin/python3"}
    assert Action({"survey": host(), "ansible_facts": facts}).run(task_vars={})["ansible_facts"] == facts


def test_only_what_the_survey_needs_of_an_account_is_sent():
    users = [{"name": "alice", "uid": 2001, "authorized_keys": ["k"]}]
    action = Action({"survey": host()}, arguments={**ARGUMENTS, "users": users})
    action.run(task_vars={})
    assert action.modules[0]["module_args"]["users"] == [{"name": "alice", "uid": 2001, "gid": 2001}]


PORTS = {"head": "head", "ports_open": [{"port": 22, "service": "SSH"}], "ports_free": [{"port": 2049, "hosts": ["a"]}]}
PLAY = {
    "inventory_hostname": "a",
    "ansible_play_hosts_all": ["a", "b"],
    "hostvars": {"a": {}, "b": {}, "head": {"ansible_host": "10.20.0.10"}},
}


def test_a_host_tries_the_ports_of_those_whose_address_is_known():
    outcomes = [{"state": "silent", "detail": ""}, {"state": "passed", "detail": ""}]
    action = Action({"survey": host(outcomes=outcomes)}, arguments={**ARGUMENTS, **PORTS})
    result = action.run(task_vars=PLAY)
    asked = action.modules[0]["module_args"]
    assert [(each["address"], each["protocol"]) for each in asked["targets"]] == [
        ("10.20.0.10", "tcp"),
        ("10.20.0.10", "mtu"),
    ]
    assert (asked["source"], asked["names"]) == ("10.20.0.11", ["a", "head"])
    assert asked["ports"] == [{"port": 22, "protocol": "tcp"}, {"port": 2049, "protocol": "tcp"}]
    assert [(each["peer"], each["service"], each["state"], each["size"]) for each in result["probes"]] == [
        ("head", "SSH", "silent", 1500),
        ("head", "", "passed", 1500),
    ]


def test_no_name_is_looked_up_where_that_is_switched_off():
    action = Action({"survey": host()}, arguments={**ARGUMENTS, **PORTS, "look_up_names": False})
    action.run(task_vars=PLAY)
    assert action.modules[0]["module_args"]["names"] == []


def test_root_is_asked_who_is_in_the_way_only_if_somebody_is():
    taken = {"port": 2049, "protocol": "tcp", "program": "", "user": "root", "address": "0.0.0.0"}
    shown = 'tcp LISTEN 0 5 0.0.0.0:2049 0.0.0.0:* users:(("nginx",pid=9,fd=6))\n'
    action = Action(
        {"survey": host(uid=1000, listeners=[taken])},
        {"rc": 0, "stdout": shown},
        arguments={**ARGUMENTS, **PORTS},
        become_pass="x",
    )
    (problem,) = action.run(task_vars=PLAY)["problems"]
    assert "nginx of user root" in problem["problem"]
    assert action.commands[1] == ("LC_ALL=C sudo -k -S -p '' ss -Hltunp", b"x\n")


def test_the_authority_on_the_control_node_is_compared_with_the_one_that_the_host_trusts(tmp_path):
    (tmp_path / "user_ca.pub").write_text("ssh-ed25519 AAAA user CA\n")
    arguments = {**ARGUMENTS, "domain": "demo.lab", "authority_dir": str(tmp_path)}
    for key, expected in (("AAAA", []), ("BBBB", ["leftovers"])):
        survey = host(earlier={"domain": "demo.lab", "authority": f"ssh-ed25519 {key}"})
        assert ids(Action({"survey": survey}, arguments=arguments).run(task_vars={})) == expected


def test_a_port_that_is_none_is_an_error():
    with pytest.raises(AnsibleActionFail, match=r"preflight_ports_open\[1\] has the port '0'"):
        Action({"survey": host()}, arguments={**ARGUMENTS, "ports_open": [{"port": 0}]}).run(task_vars={})


def test_a_misspelt_option_is_an_error():
    with pytest.raises(AnsibleActionFail, match="min_coers"):
        Action({"survey": host()}, arguments={**ARGUMENTS, "min_coers": 2}).run(task_vars={})
