# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _state
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError


def test_what_is_saved_is_loaded_again(tmp_path):
    path = tmp_path / "turnkey" / "x.json"
    _state.save_json(path, {"a": [1]})
    assert _state.load_json(path) == {"a": [1]}


def test_a_file_that_is_not_there_holds_nothing(tmp_path):
    assert _state.load_json(tmp_path / "x.json") == {}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, text):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(HpcError, match=r"x\.json"):
        _state.load_json(tmp_path / "x.json")


def test_with_nothing_to_store_the_file_and_its_directory_go(tmp_path):
    path = tmp_path / "turnkey" / "x.json"
    _state.save_json(path, {"a": [1]})
    _state.save_json(path, {"a": []})
    assert not path.parent.exists()
    assert tmp_path.exists()


def test_a_directory_that_others_use_stays(tmp_path):
    path = tmp_path / "turnkey" / "x.json"
    _state.save_json(path, {"a": [1]})
    (tmp_path / "turnkey" / "y.json").write_text("{}")
    _state.save_json(path, {})
    assert (tmp_path / "turnkey" / "y.json").exists()


def test_empty_parents_outside_the_state_directory_stay(tmp_path):
    _state.remove_empty_parents(tmp_path / "a" / "x")
    assert tmp_path.exists()


def test_an_atomic_write_sets_the_mode_and_leaves_no_temporary_file(tmp_path):
    _state.write_atomically(tmp_path / "f", b"secret", 0o600)
    assert (tmp_path / "f").stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["f"]


def test_a_mount_point_is_written_in_place(tmp_path, monkeypatch):
    path = tmp_path / "hosts"
    path.write_text("a longer text than the new one")
    inode = path.stat().st_ino

    def busy(self, target):
        raise OSError(errno.EBUSY, "busy")

    monkeypatch.setattr(Path, "replace", busy)
    _state.write_atomically(path, b"short", 0o644)
    assert path.read_text() == "short"
    assert path.stat().st_ino == inode
    assert len(list(tmp_path.iterdir())) == 1


def test_commands_run_in_the_c_locale_and_find_the_programs_of_administrators():
    seen = {}

    def run_command(argv, **options):
        seen.update(options)
        return 0, "", ""

    assert _state.runner(run_command, {"X": "1"})(["true"], None) == (0, "", "")
    environment = seen["environ_update"]
    assert environment["LC_ALL"] == "C"
    assert environment["X"] == "1"
    assert "/usr/sbin" in environment["PATH"]


def test_a_missing_program_is_code_127_and_no_exception():
    def run_command(argv, **options):
        raise FileNotFoundError(2, "No such file or directory")

    assert _state.runner(run_command)(["nope"], None) == (127, "", "nope: No such file or directory")


def test_stored_state_is_stable_text(tmp_path):
    _state.save_json(tmp_path / "x", {"b": [2], "a": [1]})
    assert (tmp_path / "x").read_text() == json.dumps({"a": [1], "b": [2]}, indent=2) + "\n"
