# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The module cleans /, so that it must not get that far here: PATH holds none of its programs, or one that fails.

Should it be so broken that it does, ``clean`` is out of its reach: these tests run on somebody's machine.
What it removes and finds is tested on a directory, in ../module_utils/test_image_root.py.
"""

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import image_root


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """Return a directory that is all of PATH."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(image_root, "clean", lambda root: pytest.fail(f"it would have cleaned {root}"))
    return tmp_path


@pytest.fixture
def run(capsys, programs):
    def call(**arguments):
        with patch_module_args(arguments), pytest.raises(SystemExit):
            image_root.main()
        return json.loads(capsys.readouterr().out)

    return call


def test_the_units_that_may_stay_must_be_given(run):
    result = run()
    assert result["failed"]
    assert "enabled_units" in result["msg"]


def test_in_check_mode_it_is_skipped_and_runs_nothing(run):
    result = run(enabled_units=["ssh.service"], _ansible_check_mode=True)
    assert result["skipped"]
    assert "failed" not in result


def test_a_program_that_fails_ends_the_module_with_its_words_before_anything_is_deleted(run, programs):
    log = programs / "log"
    program = programs / "systemctl"
    program.write_text(f'#!/bin/sh\necho "$@" >>{log}\necho "Failed to look at /: no" >&2\nexit 4\n')
    program.chmod(0o755)
    result = run(enabled_units=[])
    assert result["failed"]
    assert (result["rc"], result["msg"]) == (4, "Failed to look at /: no")
    assert log.read_text() == "--root=/ list-unit-files --state=enabled --no-legend --no-pager\n"
