# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sqlite3
import sys

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._jupyterhub import hub_database as base


@pytest.mark.parametrize(
    ("last", "release", "present", "saved", "steps"),
    [
        ("", "a", "", "", []),
        ("a", "a", "r1", "", []),
        ("", "a", "r1", "", ["backup", "upgrade"]),
        ("a", "b", "r1", "", ["backup", "upgrade"]),
        ("b", "a", "r2", "r1", ["backup", "restore"]),
        ("b", "a", "r1", "r1", ["backup", "upgrade"]),
    ],
    ids=["new", "same", "unknown", "upgrade", "rollback", "rollback within a schema"],
)
def test_a_database_is_brought_to_its_release_and_back(last, release, present, saved, steps):
    assert base.decide(last, release, present, saved) == steps


def make(path, version):
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE alembic_version (version_num TEXT)")
        database.execute("INSERT INTO alembic_version VALUES (?)", [version])


def test_an_upgrade_leaves_a_backup_and_the_rollback_brings_it_back(tmp_path, monkeypatch):
    program = tmp_path / "bin/jupyterhub"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\nimport sqlite3\nwith sqlite3.connect('jupyterhub.sqlite') as database:\n"
        "    database.execute(\"UPDATE alembic_version SET version_num = 'r2'\")\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(base.sys, "executable", str(program.parent / "python"))
    state = tmp_path / "state"
    state.mkdir()
    make(state / "jupyterhub.sqlite", "r1")
    (state / "release").write_text("old\n")
    assert base.main(state, "new", "/config") == 0
    assert base.revision(state / "jupyterhub.sqlite") == "r2"
    assert base.revision(state / "backups/old.sqlite") == "r1"
    assert (state / "backups/old.sqlite").stat().st_mode & 0o777 == 0o600
    assert base.main(state, "old", "/config") == 0
    assert base.revision(state / "jupyterhub.sqlite") == "r1"
    assert (state / "release").read_text() == "old\n"
