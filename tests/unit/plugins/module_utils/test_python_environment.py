# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _python_environment as environments
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._python_environment import Environment

LOCK = "one==1 --hash=sha256:00\n"


def steps(found, release="new", outdated=()):
    return [str(action) for action in environments.plan(found, release, outdated)]


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (Environment(), ["build new", "link current to new"]),
        (Environment(("new",), (), "new"), []),
        (Environment(("old",), (), "old"), ["build new", "link previous to old", "link current to new"]),
        (Environment(("new", "old"), (), "new", "old"), []),
        (
            Environment(("old", "older"), ("new",), "old", "older"),
            ["remove new", "build new", "link previous to old", "link current to new", "remove older"],
        ),
        (Environment(("new", "old"), (), "old", "new"), ["link previous to old", "link current to new"]),
        (Environment((), ("new",)), ["remove new", "build new", "link current to new"]),
    ],
    ids=["first", "same", "upgrade", "settled", "cut off before", "forward again", "cut off at first"],
)
def test_the_release_before_stays_and_older_ones_go(found, expected):
    assert steps(found) == expected


def test_other_files_need_no_new_environment():
    assert steps(Environment(("new",), (), "new"), outdated=["share/a"]) == ["write new/share/a"]


def test_a_rollback_swaps_the_links_and_needs_a_release_to_go_back_to():
    found = Environment(("new", "old"), (), "new", "old")
    assert [str(action) for action in environments.plan_rollback(found)] == [
        "link current to old",
        "link previous to new",
    ]
    with pytest.raises(HpcError, match="no previous release"):
        environments.plan_rollback(Environment(("new",), (), "new"))


@pytest.mark.parametrize(
    ("found", "made", "expected"),
    [
        (Environment(("new",), ("bad",), "new"), ["bad", "new"], ["remove bad", "remove new"]),
        (Environment(("old",), (), "old"), [], []),
        (
            Environment(("new", "old"), (), "new", "old"),
            ["new"],
            ["remove new", "link current to old", "unlink previous"],
        ),
        (Environment(("new", "old"), (), "old", "new"), ["new"], ["remove new", "unlink previous"]),
        (Environment(("new", "old"), (), "new", "old"), [], []),
    ],
    ids=["all was made here", "all came with the image", "upgraded", "upgraded and rolled back", "an upgraded image"],
)
def test_a_reset_removes_what_was_made_here_and_leads_back_to_what_came_with_the_image(found, made, expected):
    assert [str(action) for action in environments.plan_removal(found, made)] == expected


def test_the_name_of_a_release_depends_on_pins_and_python_but_not_on_comments():
    name = environments.release_name(LOCK, "3.11")
    assert environments.release_name(f"# from elsewhere\n\n{LOCK}", "3.11") == name
    assert environments.release_name(LOCK, "3.13") != name
    assert environments.release_name(LOCK.replace("00", "01"), "3.11") != name


def test_requirements_without_hashes_are_refused():
    with pytest.raises(InvalidInput, match="no hashes"):
        environments.release_name("one==1\n", "3.11")


def make_wheel(directory):
    """Make a package of one module with a test that must not stay, and return the lock file for it."""
    source = directory / "source"
    (source / "tiny/tests").mkdir(parents=True)
    (source / "tiny/__init__.py").write_text("answer = 42\n")
    (source / "tiny/tests/key.pem").write_text("secret\n")
    info = source / "tiny-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny\nVersion: 1\n")
    (info / "WHEEL").write_text("Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    (info / "RECORD").write_text("tiny/__init__.py,,\ntiny-1.dist-info/METADATA,,\ntiny-1.dist-info/WHEEL,,\n")
    wheel = directory / "tiny-1-py3-none-any.whl"
    subprocess.run([sys.executable, "-m", "zipfile", "-c", wheel, "tiny", "tiny-1.dist-info"], cwd=source, check=True)
    return f"tiny==1 --hash=sha256:{hashlib.sha256(wheel.read_bytes()).hexdigest()}\n"


def run(argv, stdin):
    argv = [sys.executable if argv[0] == "python3" else argv[0], *argv[1:]]
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_an_environment_is_built_from_wheels_whose_hashes_are_right(tmp_path):
    wheels, path, records = tmp_path / "wheels", tmp_path / "environments", tmp_path / "turnkey/records.json"
    wheels.mkdir()
    lock = make_wheel(wheels)
    archive = tmp_path / "wheels.tar"
    environments.pack(wheels, archive, lock, "x86_64")
    files = {"share/hello.txt": "hello\n"}
    actions = environments.plan(environments.look(path), "new", environments.outdated(path / "new", files))
    environments.apply(run, path, actions, lock, files, str(archive), records)
    code, out, _err = run([str(path / "current/bin/python"), "-c", "import tiny; print(tiny.answer)"], None)
    assert (code, out) == (0, "42\n")
    assert (path / "current/share/hello.txt").read_text() == "hello\n"
    assert not list(path.rglob("key.pem"))
    assert list(path.rglob("tiny/__pycache__/*.pyc"))
    assert environments.look(path) == Environment(("new",), (), "new")
    assert environments.plan(environments.look(path), "new", environments.outdated(path / "new", files)) == []

    wrong = lock[:-2] + ("0" if lock[-2] != "0" else "1") + "\n"
    actions = environments.plan(environments.look(path), "bad")
    with pytest.raises(HpcError, match="could not make"):
        environments.apply(run, path, actions, wrong, {}, str(archive), records)
    # The one in use is still the good one, and the next run begins with what was left.
    assert environments.look(path) == Environment(("new",), ("bad",), "new")
    assert environments.made_here(path, records) == ["bad", "new"]


def test_wheels_are_fetched_once_for_the_python_of_the_host(tmp_path):
    asked = []

    def fetch(argv, stdin):
        asked.append(argv)
        return 0, "", ""

    for _number in range(2):
        environments.fetch_wheels(fetch, tmp_path / "cache", "new", LOCK, "3.13", "x86_64", ["pip"])
    (argv,) = asked
    assert {"--python-version=3.13", "--abi=cp313", "--platform=manylinux_2_28_x86_64", "--require-hashes"} <= set(argv)


def test_a_failed_download_says_so_and_is_tried_again(tmp_path):
    answers = iter([(1, "", "WARNING: x\nERROR: no index\n"), (0, "", "")])
    with pytest.raises(HpcError, match=r"no index.*Remedy"):
        environments.fetch_wheels(lambda *_: next(answers), tmp_path, "new", LOCK, "3.13", "x86_64", ["pip"])
    environments.fetch_wheels(lambda *_: next(answers), tmp_path, "new", LOCK, "3.13", "x86_64", ["pip"])


def test_a_directory_without_wheels_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InvalidInput, match=str(tmp_path)):
        environments.pack(tmp_path, tmp_path / "x.tar", LOCK, "x86_64")


def test_of_a_bundle_only_the_wheels_of_the_lock_file_and_of_the_machine_are_sent(tmp_path):
    names = ("one-1-py3-none-any.whl", "two-1-cp311-abi3-manylinux_2_17_x86_64.whl")
    others = ("two-1-cp311-abi3-manylinux_2_17_aarch64.whl", "three-1-py3-none-any.whl")
    for release in ("debian12", "debian13"):
        (tmp_path / release).mkdir()
        for name in names + others:
            (tmp_path / release / name).write_text(name)
    digests = {name: hashlib.sha256(name.encode()).hexdigest() for name in names + others[:1]}
    lock = "".join(f"{name} --hash=sha256:{digest}\n" for name, digest in digests.items())
    environments.pack(tmp_path, tmp_path / "x.tar", lock, "x86_64")
    with tarfile.open(tmp_path / "x.tar") as archive:
        assert sorted(archive.getnames()) == sorted(names)
