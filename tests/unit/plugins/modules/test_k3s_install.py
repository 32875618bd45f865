# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json

import pytest
from ansible.module_utils.testing import patch_module_args
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s import host as host_module
from ansible_collections.turnkey.hpc.plugins.module_utils._k3s.release import sha256_of
from ansible_collections.turnkey.hpc.plugins.modules import k3s_install

VERSION = "v1.34.2+k3s1"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Move everything that the module writes into a directory; programs there are scripts that say their version."""
    monkeypatch.setattr(host_module, "RECORDS", tmp_path / "turnkey/k3s.json")
    monkeypatch.setattr(host_module.Host, "missing_links", lambda self: [])
    for module in (host_module, k3s_install):
        monkeypatch.setattr(module, "PROGRAM", str(tmp_path / "bin/k3s"))
    return tmp_path


def program(path, version=VERSION):
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"#!/bin/sh\necho 'k3s version {version} (abc)'\n")
    path.chmod(0o755)
    return {"kind": "program", "name": "k3s", "sha256": sha256_of(str(path)), "source": str(path)}


def run(capsys, place, files=(), **arguments):
    given = {
        "release_dir": "/r",
        "version": VERSION,
        "work_dir": str(place / "data"),
        "_files": list(files),
        **arguments,
    }
    with patch_module_args(given), pytest.raises(SystemExit):
        k3s_install.main()
    return json.loads(capsys.readouterr().out)


def test_what_is_missing_is_asked_for_installed_once_and_removed_again(capsys, place):
    images = place / "arrived.tar"
    images.write_text("images")
    files = [
        program(place / "new/k3s"),
        {"kind": "images", "name": "i.tar", "sha256": sha256_of(str(images)), "source": str(images)},
    ]
    asked = [{key: value for key, value in item.items() if key != "source"} for item in files]
    assert run(capsys, place, asked)["wanted"] == ["k3s", "i.tar"]
    assert not (place / "bin/k3s").exists()
    assert run(capsys, place, files)["changed"]
    assert (place / f"data/agent/images/{VERSION}-i.tar").read_text() == "images"
    assert not run(capsys, place, asked)["changed"]
    assert run(capsys, place, state="absent")["changed"]
    assert not (place / "bin/k3s").exists()
    assert not (place / "turnkey").exists()
    assert not run(capsys, place, state="absent")["changed"]


@pytest.mark.parametrize(
    ("there", "upgrade", "told"),
    [
        ("v1.33.6+k3s1", False, "run the playbook upgrade_k3s"),
        ("v1.33.6+k3s1", True, ""),
        ("v1.32.1+k3s1", True, "can't be skipped"),
        ("v1.35.0+k3s1", True, "which is older"),
    ],
)
def test_another_version_is_replaced_only_by_the_next_one_and_only_when_asked_to(capsys, place, there, upgrade, told):
    program(place / "bin/k3s", there)
    result = run(capsys, place, [program(place / "new/k3s")], upgrade=upgrade)
    assert (told in result["msg"]) if told else (result["changed"] and result["before"] == there)


def test_a_program_of_another_version_than_it_should_be_is_not_installed(capsys, place):
    result = run(capsys, place, [program(place / "new/k3s", "v1.34.9+k3s1")])
    assert "says that it is v1.34.9+k3s1, and k3s_version is v1.34.2+k3s1" in result["msg"]
    assert not (place / "bin/k3s").exists()


def test_check_mode_installs_nothing(capsys, place):
    assert run(capsys, place, [program(place / "new/k3s")], _ansible_check_mode=True)["changed"]
    assert not (place / "bin").exists()
