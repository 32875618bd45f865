# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

from ansible_collections.turnkey.hpc.plugins.module_utils._elastic import spool
from ansible_collections.turnkey.hpc.plugins.module_utils._elastic.main import main


def test_a_verb_that_is_none_or_has_too_many_words_is_told_how_it_goes(capsys):
    for argv in (
        ["node-power"],
        ["node-power", "destroy"],
        ["node-power", "resume", "a", "b"],
        ["node-power", "serve", "x"],
    ):
        assert main(argv) == 2
    assert "usage: node-power VERB" in capsys.readouterr().err


def test_a_request_of_slurm_is_written_down(tmp_path, monkeypatch):
    monkeypatch.setattr(spool.submit, "__defaults__", (str(tmp_path),))
    assert main(["node-power", "resume", "n[1-1000]"]) == 0
    assert [request["nodes"] for request in spool.pending(str(tmp_path))] == ["n[1-1000]"]


def test_an_error_is_a_sentence(capsys):
    assert not Path("/etc/turnkey/node-power/settings.json").exists()
    assert main(["node-power", "status"]) == 1
    assert capsys.readouterr().err == "/etc/turnkey/node-power/settings.json: No such file or directory\n"
