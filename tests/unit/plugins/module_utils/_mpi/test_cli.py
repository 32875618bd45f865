# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pwd
import time

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi import cli
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.manifest import Manifest
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.plan import Settings
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.service import Person, Service

ME = pwd.getpwuid(os.getuid()).pw_name


@pytest.fixture
def service(tmp_path):
    """Return a service with two runs of `hello`."""
    service = Service(Settings("none", f"{tmp_path}/mpi-%u", "", "", "/lib"), Person(ME, tmp_path, os.getuid()), {})
    service.make_base()
    for number, state in ((1, "failed"), (2, "completed")):
        place = service.base / "hello" / str(number)
        place.mkdir(parents=True)
        run = {"app": "hello", "number": number, "commit": "c" * 40, "origin": "main\x1b[2J", "begun": time.time()}
        run["manifest"] = Manifest("mpi.yml", hosts=2).as_json()
        (place / "run.json").write_text(json.dumps(run))
        result = {"state": state, "exit_code": 2 - number, "hosts": ["a", "b"], "started": 1.0, "ended": 2.0}
        (place / "result.json").write_text(json.dumps(result))
        (place / "output").write_text(f"run {number} said\n")
        (place / "build.log").write_text("$ make\n")
    return service


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["list"], ["hello", "2", "completed", "cccccccccc"]),
        (["runs", "hello"], ["failed", "completed"]),
        (["status", "hello"], ["completed", "ranks on a", "2 ranks on 2 hosts (a, b)"]),
        (["status", "hello", "1"], ["failed", "exit code 1"]),
        (["log", "hello"], ["run 2 said"]),
        (["log", "hello", "1"], ["run 1 said"]),
        (["log", "--follow", "hello", "1"], ["run 1 said", "hello run 1: failed"]),
        (["log", "--build", "hello"], ["$ make"]),
        (["status", f"{ME}/hello"], ["completed"]),
    ],
)
def test_users_see_what_they_have(service, arguments, words, capfdbinary):
    assert cli.apps(service, arguments) == 0
    text = capfdbinary.readouterr().out.decode()
    assert [word for word in words if word not in text] == []
    assert "\x1b" not in text


@pytest.mark.parametrize(("arguments", "number"), [(["status", "hello"], 2), (["runs", "hello"], 1), (["list"], 2)])
def test_programs_get_json(service, arguments, number, capfdbinary):
    assert cli.apps(service, [*arguments, "--json"]) == 0
    found = json.loads(capfdbinary.readouterr().out)
    assert (found[0] if isinstance(found, list) else found)["number"] == number


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["log", "helo"], "no run of 'helo'"),
        (["runs", "helo"], "no run of 'helo'"),
        (["log", "hello", "7"], "there are 1, 2"),
        (["log", "../hello"], "There is no user '..'"),
        (["log", "a b"], "is no application"),
        (["cancel", "hello"], "has ended already"),
        (["cancel", "root/hello" if ME != "root" else "daemon/hello"], "is not yours"),
        (["remove", "hello"], "apps remove --yes hello"),
        (["run", "helo"], "no application 'helo'"),
    ],
)
def test_what_can_not_be_done_is_said_with_a_remedy(service, arguments, complaint):
    with pytest.raises(HpcError) as caught:
        cli.apps(service, arguments)
    assert complaint in str(caught.value)


def test_runs_are_shared_and_no_longer(service):
    assert cli.apps(service, ["share", "hello"]) == 0
    assert (service.base / "hello").stat().st_mode & 0o777 == 0o755
    assert cli.apps(service, ["unshare", "hello"]) == 0
    assert (service.base / "hello").stat().st_mode & 0o777 == 0o700
    assert cli.apps(service, ["remove", "--yes", "hello"]) == 0
    assert not (service.base / "hello").exists()


@pytest.mark.parametrize("arguments", [["other/repository"], ["--stateless-rpc", "apps/x"], []])
def test_other_repositories_get_gits_own_program(service, arguments, monkeypatch):
    class Replaced(Exception):
        pass

    def execv(program, argv):
        raise Replaced(program, argv)

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(Replaced) as caught:
        cli.receive_pack(service, arguments)
    assert caught.value.args == ("/usr/bin/git-receive-pack", ["git-receive-pack", *arguments])


def test_a_directory_that_the_user_has_had_before_gets_gits_own_program(service, monkeypatch):
    (service.person.home / "apps/old").mkdir(parents=True)
    asked = []

    def execv(program, argv):
        asked.append(argv)
        raise SystemExit

    monkeypatch.setattr(os, "execv", execv)
    with pytest.raises(SystemExit):
        cli.receive_pack(service, ["apps/old"])
    assert asked == [["git-receive-pack", "apps/old"]]


def test_nothing_is_built_as_root(service, monkeypatch):
    asked = []

    def execv(program, argv):
        asked.append(argv)
        raise SystemExit

    monkeypatch.setattr(os, "execv", execv)
    service.person = Person("root", service.person.home, 0)
    with pytest.raises(SystemExit):
        cli.receive_pack(service, ["apps/new"])
    assert asked == [["git-receive-pack", "apps/new"]]


def test_options_of_a_push_are_read_and_nonsense_is_none(monkeypatch):
    monkeypatch.setenv("GIT_PUSH_OPTION_COUNT", "2")
    monkeypatch.setenv("GIT_PUSH_OPTION_0", "hosts=2")
    monkeypatch.setenv("GIT_PUSH_OPTION_1", "args=x")
    assert cli.push_options() == ["hosts=2", "args=x"]
    monkeypatch.setenv("GIT_PUSH_OPTION_COUNT", "x")
    assert cli.push_options() == []


def test_a_push_of_several_branches_is_refused_and_one_of_none_is_nothing_to_do(service, monkeypatch):
    import io
    import sys

    zero, new = "0" * 40, "1" * 40
    two = "".join(f"{zero} {new} refs/heads/{name}\n" for name in ("a", "b"))
    monkeypatch.setattr(sys, "stdin", io.StringIO(two))
    with pytest.raises(HpcError, match="changes 2 branches"):
        cli.pre_receive(service, [])
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"{new} {zero} refs/heads/a\n"))
    assert cli.pre_receive(service, []) == 0
