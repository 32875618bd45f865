# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import platform

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.modules import python_environment

LOCK = {".".join(platform.python_version_tuple()[:2]): "one==1 --hash=sha256:00\n"}


@pytest.fixture(autouse=True)
def records(tmp_path, monkeypatch):
    """Return the file of the records, which is not that of this computer."""
    monkeypatch.setattr(python_environment, "RECORDS", tmp_path / "state/turnkey/records.json")
    return tmp_path / "state/turnkey/records.json"


def run(capsys, **arguments):
    with patch_module_args(arguments), pytest.raises(SystemExit):
        python_environment.main()
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("check_mode", [False, True])
def test_a_host_without_the_environment_asks_for_wheels_and_is_left_alone(capsys, tmp_path, check_mode):
    result = run(capsys, path=str(tmp_path / "place"), requirements=LOCK, _ansible_check_mode=check_mode)
    assert result["changed"]
    assert result["missing"]["python"].startswith("3.")
    assert result["actions"] == [f"build {result['release']}", f"link current to {result['release']}"]
    assert not (tmp_path / "place").exists()


def test_an_environment_that_is_there_is_taken_without_wheels_and_a_second_run_changes_nothing(capsys, tmp_path):
    release = run(capsys, path=str(tmp_path), requirements=LOCK)["release"]
    (tmp_path / release).mkdir()
    (tmp_path / release / ".complete").touch()
    result = run(capsys, path=str(tmp_path), requirements=LOCK, files={"share/a": "b\n"})
    assert (result["changed"], result["missing"]) == (True, {})
    assert (tmp_path / "current/share/a").read_text() == "b\n"
    assert not run(capsys, path=str(tmp_path), requirements=LOCK, files={"share/a": "b\n"})["changed"]


def test_a_python_without_a_lock_file_is_one_clear_message(capsys, tmp_path):
    assert "no lock file for Python" in run(capsys, path=str(tmp_path), requirements={"2.7": "x"})["msg"]


def test_what_can_not_be_gone_back_to_is_one_clear_message(capsys, tmp_path):
    assert "Remedy" in run(capsys, path=str(tmp_path), state="previous")["msg"]


def test_all_of_it_goes_and_goes_once(capsys, tmp_path):
    place = tmp_path / "turnkey/place"
    (place / "release").mkdir(parents=True)
    assert run(capsys, path=str(place), state="absent", _ansible_check_mode=True)["changed"]
    assert place.exists()
    assert run(capsys, path=str(place), state="absent")["changed"]
    assert not (tmp_path / "turnkey").exists()
    assert not (tmp_path / "state/turnkey").exists()
    assert not run(capsys, path=str(place), state="absent")["changed"]


def test_what_came_with_an_image_stays_and_is_in_use_again(capsys, tmp_path, records):
    place = tmp_path / "place"
    for name in ("image", "later"):
        (place / name).mkdir(parents=True)
        (place / name / ".complete").touch()
    (place / "current").symlink_to("later")
    (place / "previous").symlink_to("image")
    records.parent.mkdir(parents=True)
    records.write_text(json.dumps({str(place): ["later"]}))
    done = run(capsys, path=str(place), state="absent")
    assert done["actions"] == ["remove later", "link current to image", "unlink previous"]
    assert sorted(entry.name for entry in place.iterdir()) == ["current", "image"]
    assert (place / "current").resolve().name == "image"
    assert not records.exists()
    assert not run(capsys, path=str(place), state="absent")["changed"]
