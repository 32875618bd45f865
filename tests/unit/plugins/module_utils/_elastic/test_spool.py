# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.spool import claim, finish, pending, submit


def test_a_request_is_there_until_it_is_done(tmp_path):
    spool = str(tmp_path)
    submit("resume", "n[1-3]", {}, spool)
    ((path, request),) = claim(spool)
    assert (request["verb"], request["nodes"]) == ("resume", "n[1-3]")
    assert claim(spool) == []
    assert [found["nodes"] for found in pending(spool)] == ["n[1-3]"]
    # a worker that was killed: the next one takes it up
    assert [found["nodes"] for _path, found in claim(spool, again=True)] == ["n[1-3]"]
    finish(path)
    finish(path)
    assert pending(spool) == []


def test_requests_are_claimed_in_the_order_in_which_slurm_made_them(tmp_path):
    for number in range(20):
        submit("resume", f"n{number}", {}, str(tmp_path))
    assert [request["nodes"] for _path, request in claim(str(tmp_path))] == [f"n{number}" for number in range(20)]


def test_the_jobs_of_slurms_resume_file_are_copied_as_slurm_removes_it(tmp_path):
    resume = tmp_path / "resume.json"
    jobs = [{"job_id": 7, "nodes_resume": "n[1-2]"}]
    resume.write_text(json.dumps({"all_nodes_resume": "n[1-2]", "jobs": jobs}), encoding="utf-8")
    spool = tmp_path / "spool"
    spool.mkdir()
    submit("resume", "n[1-2]", {"SLURM_RESUME_FILE": str(resume)}, str(spool))
    resume.unlink()
    assert claim(str(spool))[0][1]["jobs"] == jobs


def test_a_missing_or_damaged_resume_file_loses_no_request(tmp_path):
    bad = tmp_path / "bad"
    bad.write_text("[", encoding="utf-8")
    spool = tmp_path / "spool"
    spool.mkdir()
    for path in (bad, tmp_path / "none"):
        submit("resume", "n1", {"SLURM_RESUME_FILE": str(path)}, str(spool))
    assert [request["jobs"] for _path, request in claim(str(spool))] == [None, None]


def test_what_is_no_request_is_removed(tmp_path):
    for number, text in enumerate(("", "[]", '{"verb": "destroy", "nodes": "n1"}', '{"verb": "resume", "nodes": 3}')):
        (tmp_path / f"{number}.json").write_text(text, encoding="utf-8")
    assert claim(str(tmp_path)) == []
    assert list(tmp_path.iterdir()) == []
