# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _accounts as subject
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBUAhbDfYtRXVqyHGyQ5bjRoDWPnPwqbDAfWUNgbTtXV alice@laptop"
PASSWD = """root:x:0:0:root:/root:/bin/bash
sshd:x:101:65534::/run/sshd:/usr/sbin/nologin
carl:x:2005:2005:Carl:/home/carl:/bin/bash
"""
GROUP = """root:x:0:
users:x:100:carl
mpi:x:900:
carl:x:2005:
"""
DIRECTORIES = frozenset({"/home"})


def system(**more):
    return subject.System(
        subject.parse_users(PASSWD),
        subject.parse_groups(GROUP),
        **{"homes": {"/home/carl": 2005}, "directories": DIRECTORIES, **more},
    )


def parse(*items):
    return subject.parse_accounts(list(items))


def what(steps):
    return [(step.name, step.what) for step in steps]


ALICE = {"name": "alice", "uid": 2001}
CARL = {"name": "carl", "uid": 2005, "comment": "Carl"}


def test_a_new_account_gets_its_group_first_and_can_log_in_with_keys_only():
    steps = subject.plan(parse({**ALICE, "groups": ["mpi", "users"]}), system(), set())
    assert what(steps) == [("alice", "group"), ("alice", "account")]
    assert steps[0].argv == ("groupadd", "--gid", "2001", "alice")
    argv = steps[1].argv
    assert argv[argv.index("--password") + 1] == "*"
    assert argv[argv.index("--groups") + 1] == "mpi,users"
    assert "HOME_MODE=0700" in argv


def test_all_groups_are_made_before_the_first_account():
    steps = subject.plan(parse({**ALICE, "groups": ["bob"]}, {"name": "bob", "uid": 2002}), system(), set())
    assert [step.what for step in steps] == ["group", "group", "account", "account"]


def test_a_home_that_is_there_already_is_not_made_again():
    steps = subject.plan(parse(ALICE), system(homes={"/home/alice": 2001}), set())
    assert "--no-create-home" in steps[-1].argv


def test_an_account_that_is_right_needs_nothing():
    assert subject.plan(parse({**CARL, "groups": ["users"], "authorized_keys": []}), system(), set()) == []


@pytest.mark.parametrize(
    ("change", "argv"),
    [
        ({"comment": "C"}, ("usermod", "--comment", "C", "carl")),
        ({"shell": "/bin/sh"}, ("usermod", "--shell", "/bin/sh", "carl")),
        ({"groups": ["mpi"]}, ("usermod", "--groups", "mpi", "carl")),
        ({"groups": []}, ("usermod", "--groups", "", "carl")),
    ],
)
def test_each_difference_is_one_command(change, argv):
    assert [step.argv for step in subject.plan(parse({**CARL, **change}), system(), set())] == [argv]


def test_groups_and_keys_that_are_not_given_are_left_alone():
    assert subject.plan(parse(CARL), system(keys={"carl": "theirs\n"}), set()) == []


def test_keys_are_exactly_the_given_ones():
    keys = {"carl": "old\n"}
    steps = subject.plan(parse({**CARL, "authorized_keys": [KEY]}), system(keys=keys), set())
    assert [step.text for step in steps] == [KEY + "\n"]
    steps = subject.plan(parse({**CARL, "authorized_keys": []}), system(keys=keys), set())
    assert [step.text for step in steps] == [None]


def test_a_sudo_rule_comes_and_goes():
    rule = subject.SUDOERS.format(name="carl")
    assert [step.text for step in subject.plan(parse({**CARL, "sudo": True}), system(), set())] == [rule]
    assert [step.text for step in subject.plan(parse(CARL), system(sudoers={"carl": rule}), set())] == [None]


def test_only_accounts_that_were_made_are_removed():
    gone = parse({**CARL, "state": "absent"})
    assert subject.plan(gone, system(), set()) == []
    assert [step.argv for step in subject.plan(gone, system(), {"carl"})] == [("userdel", "carl")]


def test_a_home_goes_only_if_that_is_asked_for():
    steps = subject.plan(parse({**CARL, "state": "absent"}), system(), {"carl"}, wipe_homes=True)
    assert steps[0].argv == ("userdel", "--remove", "carl")


def test_a_group_whose_account_was_never_made_is_removed_too():
    steps = subject.plan(parse({"name": "mpi", "uid": 2009, "state": "absent"}), system(), {"mpi"})
    assert [step.argv for step in steps] == [("groupdel", "mpi")]


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"name": "carl", "uid": 2001}, "carl should have uid 2001, but exists with uid 2005"),
        ({"name": "dora", "uid": 2005}, "uid 2005 of dora belongs to carl"),
        ({"name": "dora", "uid": 2010, "gid": 2005}, "gid 2005 of dora belongs to group carl"),
        ({"name": "mpi", "uid": 2010}, "Group mpi should have gid 2010, but exists with gid 900"),
        ({**CARL, "home": "/home/c"}, "carl should live in /home/c, but lives in /home/carl"),
        ({**ALICE, "groups": ["gpu"]}, "alice should be in group gpu, which does not exist"),
        ({**ALICE, "home": "/data/alice"}, "there is no directory /data"),
        ({**ALICE, "home": "/home/carl"}, "/home/carl of alice belongs to uid 2005, not 2001"),
    ],
)
def test_what_is_taken_or_missing_on_the_host_is_a_conflict(item, message):
    assert any(message in problem for problem in subject.conflicts(parse(item), system()))


def test_all_conflicts_are_found_at_once():
    accounts = parse({"name": "carl", "uid": 2001}, {"name": "dora", "uid": 2005})
    assert len(subject.conflicts(accounts, system())) >= 3


def test_accounts_that_fit_have_no_conflict():
    accounts = parse(CARL, {**ALICE, "groups": ["bob", "users"]}, {"name": "bob", "uid": 2002})
    assert subject.conflicts(accounts, system()) == []


def test_an_account_that_should_go_has_no_conflict():
    assert subject.conflicts(parse({"name": "carl", "uid": 2001, "state": "absent"}), system()) == []


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"name": "Alice", "uid": 2001}], "'Alice' can't be a login name"),
        ([{"name": "../x", "uid": 2001}], "can't be a login name"),
        ([{"name": "a", "uid": 0}], "uid 0 of a"),
        ([{"name": "a", "uid": 65534}], "uid 65534 of a"),
        ([{**ALICE, "comment": "a:b"}], "comment 'a:b'"),
        ([{**ALICE, "home": "x"}], "home 'x'"),
        ([{**ALICE, "home": "/home/../root"}], "home '/home/../root'"),
        ([{**ALICE, "authorized_keys": ["foo"]}], "'foo' is no public SSH key"),
        ([{**ALICE, "authorized_keys": [KEY + "\n" + KEY]}], "is no public SSH key"),
        ([ALICE, ALICE], "alice is listed twice"),
        ([ALICE, {"name": "bob", "uid": 2001}], "uid 2001 is given to both alice and bob"),
        ([ALICE, {"name": "bob", "uid": 2002, "gid": 2001}], "gid 2001 is given to both"),
    ],
)
def test_wrong_input_is_refused(items, message):
    with pytest.raises(InvalidInput, match=message):
        parse(*items)


def test_keys_may_carry_options():
    assert parse({**ALICE, "authorized_keys": [f'from="10.0.0.0/8" {KEY}', ""]})[0].authorized_keys


class Machine:
    """A host whose commands are recorded."""

    def __init__(self, answers=(), passwd=PASSWD):
        self.calls = []
        self.passwd = passwd
        self.answers = list(answers)

    def __call__(self, argv, stdin=None):
        self.calls.append((argv, stdin))
        if argv[0] == "getent":
            return 0, {"passwd": self.passwd, "group": GROUP}[argv[1]], ""
        return self.answers.pop(0) if self.answers else (0, "", "")


def test_the_host_is_read_with_one_call_for_each_database(tmp_path):
    (tmp_path / "home" / "carl" / ".ssh").mkdir(parents=True)
    (tmp_path / "home" / "carl" / ".ssh" / "authorized_keys").write_text("k\n")
    machine = Machine(passwd=f"carl:x:{os.geteuid()}:{os.getegid()}::/home/carl:/bin/sh\n")
    host = subject.Host(machine, str(tmp_path))
    found = host.system(parse({**CARL, "authorized_keys": []}, ALICE))
    assert [argv for argv, _stdin in machine.calls] == [["getent", "passwd"], ["getent", "group"]]
    assert found.keys == {"carl": "k\n"}
    assert found.directories == {"/home"}


def test_what_is_made_is_noted_before_and_forgotten_after(tmp_path):
    host = subject.Host(Machine(), str(tmp_path))
    accounts = parse(ALICE)
    subject.apply(host, accounts, subject.plan(accounts, system(), set()), set())
    assert host.made() == {"alice"}
    assert [account.name for account in host.leaving()] == ["alice"]
    gone = parse({**ALICE, "state": "absent"})
    subject.apply(host, gone, [], {"alice"})
    assert host.made() == set()
    assert not host.state.parent.exists()


def test_processes_of_an_account_that_goes_are_ended(tmp_path):
    machine = Machine([(8, "", "used by process 7"), (0, "", ""), (8, "", ""), (0, "", "")])
    host = subject.Host(machine, str(tmp_path), pause=lambda seconds: None)
    host.call(subject.Step("alice", "account", "", "", ("userdel", "alice")))
    assert [argv[0] for argv, _stdin in machine.calls] == ["userdel", "loginctl", "userdel", "userdel"]


def test_a_command_that_fails_is_named_with_what_it_said(tmp_path):
    host = subject.Host(Machine([(1, "", "cannot lock /etc/passwd")]), str(tmp_path))
    with pytest.raises(HpcError, match="usermod for alice failed with code 1: cannot lock /etc/passwd"):
        host.call(subject.Step("alice", "shell", "", "", ("usermod", "alice")))


def test_a_sudo_rule_that_visudo_refuses_is_not_written(tmp_path):
    (tmp_path / "etc" / "sudoers.d").mkdir(parents=True)
    host = subject.Host(Machine([(1, "", "syntax error")]), str(tmp_path))
    with pytest.raises(HpcError, match="syntax error"):
        host.write_rule("alice", "bad")
    assert list((tmp_path / "etc" / "sudoers.d").iterdir()) == []


def test_a_sudo_rule_without_sudo_is_an_error_that_says_so(tmp_path):
    with pytest.raises(HpcError, match="sudo is not installed"):
        subject.Host(Machine(), str(tmp_path)).write_rule("alice", "rule")


def test_rules_are_for_root_only_and_are_found_again(tmp_path):
    (tmp_path / "etc" / "sudoers.d").mkdir(parents=True)
    host = subject.Host(Machine(), str(tmp_path))
    host.write_rule("alice", "rule\n")
    assert next((tmp_path / "etc" / "sudoers.d").iterdir()).stat().st_mode & 0o777 == 0o440
    assert [account.name for account in host.leaving()] == ["alice"]
    host.write_rule("alice", None)
    assert host.leaving() == []


def test_keys_are_written_for_the_user_alone(tmp_path):
    (tmp_path / "home" / "alice").mkdir(parents=True)
    account = subject.Account("alice", os.geteuid(), os.getegid(), home="/home/alice")
    host = subject.Host(Machine(), str(tmp_path))
    host.write_keys(account, KEY + "\n")
    directory = tmp_path / "home" / "alice" / ".ssh"
    assert directory.stat().st_mode & 0o777 == 0o700
    assert (directory / "authorized_keys").stat().st_mode & 0o777 == 0o600
    host.write_keys(account, None)
    assert list(directory.iterdir()) == []
