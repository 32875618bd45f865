# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._jupyterhub import logins


def test_a_one_time_password_is_good_once_and_for_its_owner_only(tmp_path):
    password = logins.drop(tmp_path)
    me = os.getuid()
    assert not logins.take(tmp_path, me + 1, password)
    assert not logins.take(tmp_path, me, password + "x")
    assert logins.take(tmp_path, me, password)
    assert not logins.take(tmp_path, me, password)


def test_the_letter_box_holds_hashes_and_no_passwords(tmp_path):
    password = logins.drop(tmp_path)
    (letter,) = tmp_path.iterdir()
    assert password not in letter.read_text()
    assert len(password.replace("-", "")) == 20


def test_an_old_password_is_refused_and_thrown_away(tmp_path):
    password = logins.drop(tmp_path)
    (letter,) = tmp_path.iterdir()
    later = letter.stat().st_mtime + logins.VALID_SECONDS + 1
    assert not logins.take(tmp_path, os.getuid(), password, later)
    assert not list(tmp_path.iterdir())


def test_a_password_dated_into_the_future_is_refused(tmp_path):
    password = logins.drop(tmp_path)
    (letter,) = tmp_path.iterdir()
    os.utime(letter, (4e9, 4e9))
    assert not logins.take(tmp_path, os.getuid(), password)


@pytest.mark.parametrize("make", [os.symlink, os.link], ids=["symbolic", "hard"])
def test_a_link_to_a_file_of_somebody_else_is_no_password_of_theirs(tmp_path, make):
    box, elsewhere = tmp_path / "box", tmp_path / "file"
    box.mkdir()
    elsewhere.write_text(logins.digest("guess"))
    make(elsewhere, box / "letter")
    assert not logins.take(box, os.getuid(), "guess")


def test_what_is_no_letter_does_no_harm(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    assert not logins.take(tmp_path, os.getuid(), "x")
    assert not logins.take(tmp_path / "nowhere", os.getuid(), "x")


def test_the_sixth_wrong_password_in_a_row_has_to_wait_and_time_heals():
    limiter = logins.Limiter()
    for number in range(5):
        assert limiter.wait(["name a", "address x"], number) == 0
        limiter.note(["name a", "address x"], False, number)
    assert limiter.wait(["name a", "address y"], 5) > 0
    assert limiter.wait(["name b", "address x"], 5) > 0
    assert limiter.wait(["name b", "address y"], 5) == 0
    assert limiter.wait(["name a", "address x"], 5 + limiter.seconds) == 0


def test_a_success_forgives_the_name_but_not_the_address():
    limiter = logins.Limiter()
    for number in range(5):
        limiter.note(["name a", "address x"], False, number)
    limiter.note(["name a", "address x"], True, 5)
    assert limiter.wait(["name a"], 5) == 0
    assert limiter.wait(["address x"], 5) > 0


def test_the_limiter_forgets_what_has_healed():
    limiter = logins.Limiter()
    for number in range(100):
        limiter.note([f"name {number}"], False, number * 100.0)
    assert len(limiter.failed) <= 1
