# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import pwd
import stat
import time
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.manifest import Manifest
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.plan import Settings, Step
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.service import (
    Gone,
    Person,
    Service,
    read_json,
    read_manifest,
)


@pytest.fixture
def service(tmp_path):
    """Return the service of somebody whose home is empty; there is no scheduler and no host."""
    hostfile = tmp_path / "hosts"
    hostfile.write_text("")
    settings = Settings("none", f"{tmp_path}/mpi-%u", str(hostfile), str(tmp_path / "queue"), "/lib", build_seconds=5)
    name = pwd.getpwuid(os.getuid()).pw_name
    return Service(settings, Person(name, tmp_path, os.getuid()), {"PATH": os.environ["PATH"]})


@pytest.fixture
def place(service):
    """Return the directory of run 1 of `hello`."""
    service.make_base()
    directory = service.base / "hello" / "1"
    (directory / "source").mkdir(parents=True)
    run = {"app": "hello", "number": 1, "begun": time.time(), "manifest": Manifest("mpi.yml").as_json(), "builder": 1}
    (directory / "run.json").write_text(json.dumps(run))
    return directory


def ended(place, **result):
    (place / "result.json").write_text(json.dumps(result))


def test_the_directory_of_runs_is_the_users_alone_and_lets_others_pass(service):
    service.make_base()
    assert stat.S_IMODE(service.base.stat().st_mode) == 0o711


@pytest.mark.parametrize("kind", ["link", "open"])
def test_what_somebody_else_has_put_in_its_place_is_not_used(service, kind, tmp_path):
    if kind == "link":
        service.base.symlink_to(tmp_path)
    else:
        service.base.mkdir()
        service.base.chmod(0o777)
    with pytest.raises(HpcError, match="ask an administrator"):
        service.make_base()


def test_what_a_build_says_is_shown_and_kept_without_the_environment_of_the_login(service, place, monkeypatch):
    monkeypatch.setenv("SECRET", "x")
    said = []
    service.build(Step(("/bin/sh", "-ec", "echo one; echo two >&2; echo $SECRET$PATH"), "make"), place, said.append)
    text = b"".join(said).decode()
    assert text == "$ make\none\ntwo\n/usr/local/bin:/usr/bin:/bin\n"
    assert (place / "build.log").read_text() == text


def test_a_build_that_fails_or_takes_too_long_or_that_nobody_sees_ends(service, place, tmp_path):
    with pytest.raises(HpcError, match="exit code 3"):
        service.build(Step(("/bin/sh", "-ec", "exit 3"), "x"), place, lambda data: None)
    service.settings = Settings(**{**service.settings.__dict__, "build_seconds": 0.5})
    begun = time.monotonic()
    with pytest.raises(HpcError, match="longer than"):
        service.build(Step(("/bin/sh", "-ec", "tail -f /dev/null & tail -f /dev/null"), "x"), place, lambda data: None)
    assert time.monotonic() - begun < 4

    def nobody(data):
        if b"here" in data:
            raise Gone

    with pytest.raises(Gone):
        service.build(Step(("/bin/sh", "-ec", "echo here; tail -f /dev/null"), "x"), place, nobody)


@pytest.mark.parametrize(
    ("make", "complaint"),
    [
        (lambda path: None, "made no file"),
        (lambda path: path.symlink_to("/bin/true"), "leads out of the tree"),
        (lambda path: path.write_text(""), "can't be executed"),
        (lambda path: path.mkdir(), "made no file"),
    ],
)
def test_what_a_build_leaves_must_be_a_program_inside_of_the_tree(service, place, make, complaint):
    make(place / "source/app")
    with pytest.raises(HpcError, match=complaint):
        service.check_target(Manifest("mpi.yml", target="app"), place)


def test_a_run_is_what_was_asked_for_and_what_became_of_it(service, place):
    ended(place, state="completed", exit_code=0, hosts=["n1"], started=10.0, ended=12.5)
    run = service.current("hello", 1)
    assert (run["state"], run["exit_code"], run["seconds"], run["ranks"]) == ("completed", 0, 2.5, {"n1": [0]})


@pytest.mark.parametrize(
    ("result", "state"),
    [
        ({"state": "running", "pid": 1, "started": 1.0}, "lost"),
        ({"state": "queued", "pid": 1}, "lost"),
        ({"state": "queued", "queued": 1.0}, "lost"),
        ({"state": "queued", "queued": time.time() + 600}, "queued"),
        ({"state": "built"}, "built"),
        ({"state": "rejected", "error": "x"}, "rejected"),
    ],
)
def test_a_run_whose_process_is_gone_is_lost(service, place, result, state):
    ended(place, **result)
    assert service.current("hello", 1)["state"] == state
    if state == "lost":
        assert read_json(place / "result.json")["state"] == "lost"


def test_a_build_that_was_cut_off_is_rejected(service, place):
    assert service.current("hello", 1)["state"] == "rejected"


SQUEUE = """#!/bin/sh
case $1,$SAYS in
  *,forgotten) echo "slurm_load_jobs error: Invalid job id specified" >&2; exit 1;;
  *,silent) echo "slurm_load_jobs error: Unable to contact slurm controller" >&2; exit 1;;
esac
echo "$SAYS|Resources"
"""


@pytest.mark.parametrize(
    ("says", "state"),
    [
        ("PENDING", "running"),
        ("COMPLETING", "running"),
        ("silent", "running"),
        ("NODE_FAIL", "lost"),
        ("forgotten", "lost"),
        ("CANCELLED", "cancelled"),
        ("TIMEOUT", "timeout"),
    ],
)
def test_slurm_knows_whether_a_job_lives(service, place, says, state, tmp_path, monkeypatch):
    (tmp_path / "squeue").write_text(SQUEUE)
    (tmp_path / "squeue").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    service.environment = {"PATH": os.environ["PATH"], "SAYS": says}
    run = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps({**run, "job": 7}))
    ended(place, state="running", started=1.0, hosts=["n1"])
    assert service.current("hello", 1)["state"] == state


def test_output_is_followed_to_its_end(service, place):
    (place / "output").write_text("one\ntwo\n")
    ended(place, state="failed", exit_code=3)
    said = []
    assert service.follow("hello", 1, said.append)["exit_code"] == 3
    assert b"".join(said) == b"one\ntwo\n"


def test_a_run_that_has_ended_is_not_cancelled(service, place):
    ended(place, state="failed", exit_code=3)
    with pytest.raises(HpcError, match="has ended already"):
        service.cancel(service.current("hello", 1))


def test_old_runs_go_and_an_application_goes_as_a_whole(service, place):
    ended(place, state="failed", exit_code=3)
    service.settings = Settings(**{**service.settings.__dict__, "keep_runs": 1})
    service.prune("hello")
    assert not place.exists()
    service.repository("hello").create()
    assert service.apps() == ["hello"]
    service.remove("hello")
    assert service.apps() == []
    assert not service.base.exists()
    with pytest.raises(HpcError, match="no application"):
        service.remove("hello")


def test_an_application_that_runs_is_not_removed(service, place):
    ended(place, state="queued", queued=time.time())
    with pytest.raises(HpcError, match="apps cancel hello"):
        service.remove("hello")


def test_too_few_hosts_is_an_answer_before_the_build(service):
    with pytest.raises(HpcError, match=r"asks for 2 hosts, and 0 of 0 answer now \(none\)"):
        service.check_hosts(Manifest("mpi.yml", hosts=2))


def test_a_tree_has_one_manifest(tmp_path):
    with pytest.raises(InvalidInput, match=r"no file mpi\.yml"):
        read_manifest(tmp_path, ["a.c"])
    with pytest.raises(InvalidInput, match="both"):
        read_manifest(tmp_path, ["mpi.yml", "mpi.xml"])
    (tmp_path / "mpi.xml").write_text("from: a.c\nto: a\nhosts: 1\n")
    assert read_manifest(tmp_path, ["mpi.xml"]).target == "a"


def test_a_file_that_is_being_written_is_read_again(tmp_path):
    assert read_json(tmp_path / "none") == {}
    (tmp_path / "list").write_text("[]")
    assert read_json(tmp_path / "list") == {}


def test_people_are_those_of_the_account_database(monkeypatch):
    monkeypatch.setenv("HOME", "/elsewhere")
    person = Person.current()
    assert person == Person.named(person.name)
    assert person.home == Path(pwd.getpwuid(os.getuid()).pw_dir)
    with pytest.raises(InvalidInput, match="no user 'nobody-like-that'"):
        Person.named("nobody-like-that")
