# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import gzip
import os
import tarfile
from datetime import datetime, timedelta, timezone

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._slurm.backup import (
    Manifest,
    begin,
    check,
    complete,
    find,
    held,
    pack_accounting,
    pack_state,
    read_manifest,
    recorded_jobs,
    unpack_state,
)

OWNER = (os.getuid(), os.getgid())
MANIFEST = Manifest("state", "lab", "22.05.8", "20261122T101500Z")


def slurm(argv, stdin=None):
    return 0, "slurm-wlm 22.05.8\n", ""


@pytest.fixture
def state(tmp_path):
    directory = tmp_path / "slurmctld"
    (directory / "hash.1/job.1").mkdir(parents=True)
    (directory / "clustername").write_text("lab")
    (directory / "hash.1/job.1/script").write_text("#!/bin/sh")
    (directory / "slurmctld.pid").write_text("1")
    return directory


def test_a_state_comes_back_as_it_was_and_nothing_else_stays(tmp_path, state):
    archive = tmp_path / "state.tar"
    pack_state(slurm, archive, "lab", state, "20261122T101500Z")
    assert archive.stat().st_mode & 0o777 == 0o600
    assert read_manifest(archive) == MANIFEST
    target = tmp_path / "fresh"
    (target / "hash.9").mkdir(parents=True)
    (target / "job_state").write_text("other")
    unpack_state(archive, target, OWNER)
    found = sorted(str(path.relative_to(target)) for path in target.rglob("*"))
    assert found == ["clustername", "hash.1", "hash.1/job.1", "hash.1/job.1/script"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "slurmctld", "state.tar"]


def test_a_directory_that_is_no_state_of_a_controller_is_refused(tmp_path):
    with pytest.raises(HpcError, match="is not the state of a slurmctld"):
        pack_state(slurm, tmp_path / "state.tar", "lab", tmp_path, "now")


def test_an_archive_that_leads_out_of_its_directory_is_refused_and_the_old_state_stays(tmp_path, state):
    archive = tmp_path / "evil.tar"
    with tarfile.open(archive, "w") as tar:
        tar.add(state, "state")
        tar.add(state / "clustername", "state/../../evil")
    with pytest.raises(InvalidInput, match=r"state/\.\./\.\./evil"):
        unpack_state(archive, state, OWNER)
    assert (state / "slurmctld.pid").exists()
    assert not (tmp_path.parent / "evil").exists()


@pytest.mark.parametrize("content", [b"", b"nothing", gzip.compress(b"nothing")], ids=["empty", "text", "gzip"])
def test_what_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "x.tar"
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"is no archive of backup\.yml"):
        read_manifest(path)


def test_a_dump_that_fails_leaves_no_archive(tmp_path):
    def run(argv, stdin=None):
        return (0, "slurm-wlm 22.05.8\n", "") if argv[0] == "slurmdbd" else (2, "", "Got error: 2002")

    with pytest.raises(HpcError, match="mariadb-dump of slurm_acct_db failed: Got error: 2002"):
        pack_accounting(run, tmp_path / "accounting.tar", "lab", "slurm_acct_db", "now")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("part", "cluster", "here", "refusal"),
    [
        ("state", "lab", "22.05.11", None),
        ("state", "lab", "23.11.4", None),
        ("accounting", "lab", "22.05.8", "of the state of cluster 'lab', not of the accounting of cluster 'lab'"),
        ("state", "other", "22.05.8", "not of the state of cluster 'other'"),
        ("state", "lab", "21.08.8", "Slurm never goes back"),
        ("state", "lab", "24.11.5", "go 22.05 -> 23.11 -> 24.11"),
    ],
)
def test_a_backup_of_another_cluster_or_of_a_release_that_does_not_fit_is_refused(part, cluster, here, refusal):
    if refusal is None:
        check(MANIFEST, part, cluster, here)
    else:
        with pytest.raises(HpcError, match=refusal):
            check(MANIFEST, part, cluster, here)


def test_slurmctld_is_started_again_when_the_archive_fails():
    calls = []

    def run(argv, stdin=None):
        calls.append(argv[1])
        return 0, "", ""

    with pytest.raises(ZeroDivisionError), held(run, True):
        raise ZeroDivisionError
    assert calls == ["stop", "start"]


def test_jobs_are_counted_where_the_cluster_has_a_table():
    statements = []

    def run(argv, stdin=None):
        statements.append(argv[-1])
        return 0, "lab-2_job_table\n" if "information_schema" in argv[-1] else "42\n", ""

    assert recorded_jobs(run, "slurm_acct_db", "lab-2") == 42
    assert statements[1] == "SELECT COUNT(*) FROM `slurm_acct_db`.`lab-2_job_table`"
    assert recorded_jobs(lambda _argv, _stdin: (0, "", ""), "slurm_acct_db", "lab") == 0
    with pytest.raises(InvalidInput):
        recorded_jobs(run, "a`; DROP DATABASE b", "lab")


def _backup(home, day, state):
    place = begin(home, "lab", datetime(2026, 11, 22, tzinfo=timezone.utc) + timedelta(days=day))
    pack_state(slurm, place / "state.tar", "lab", state, "now")
    pack_state(slurm, place / "accounting.tar", "lab", state, "now")
    return place


def test_the_last_backups_stay_and_only_their_owner_reads_them(tmp_path, state):
    home = tmp_path / "backups"
    results = [complete(_backup(home, day, state), keep=2) for day in range(4)]
    assert [removed for _place, removed in results] == [[], [], ["20261122T000000Z"], ["20261123T000000Z"]]
    assert find(home, "lab") == results[-1][0] == home / "lab/20261125T000000Z"
    assert find(home, "lab", "20261124T000000Z").name == "20261124T000000Z"
    modes = {path.stat().st_mode & 0o777 for path in (home, *home.rglob("*"))}
    assert modes == {0o700, 0o600}


def test_a_backup_that_was_cut_off_is_none_and_goes_with_the_next(tmp_path, state):
    home = tmp_path / "backups"
    cut_off = begin(home, "lab")
    with pytest.raises(InvalidInput, match="There is no backup in"):
        find(home, "lab")
    with pytest.raises(InvalidInput, match="is no archive"):
        complete(cut_off, keep=2)
    complete(_backup(home, 1, state), keep=2)
    assert [path.name for path in (home / "lab").iterdir()] == ["20261123T000000Z"]


def test_a_backup_that_is_named_and_not_there_is_one_clear_message(tmp_path):
    with pytest.raises(InvalidInput, match=r"There is no backup .*/lab/yesterday"):
        find(tmp_path, "lab", "yesterday")
