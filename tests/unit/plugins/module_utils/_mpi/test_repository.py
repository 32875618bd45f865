# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import io
import os
import subprocess
import tarfile
import threading

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi import repository as repositories
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.plan import Settings
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.repository import Repository, extract


def archive(*members):
    """Return a tar archive of (name, content) and (name, attributes) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            if isinstance(content, bytes):
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
            else:
                for key, value in content.items():
                    setattr(member, key, value)
                tar.addfile(member)
    buffer.seek(0)
    return buffer


@pytest.fixture
def repository(tmp_path):
    return Repository("hello", tmp_path, {"PATH": os.environ["PATH"], "HOME": str(tmp_path)})


def test_a_repository_is_made_once_private_and_without_hooks_of_a_template(repository):
    repository.create()
    repository.create()
    assert repository.ours
    assert repository.path.stat().st_mode & 0o777 == 0o700
    assert not (repository.path / "hooks").exists()
    assert [path.name for path in repository.path.parent.iterdir()] == ["hello"]


def test_what_the_user_has_had_before_is_left_alone(repository):
    repository.path.mkdir(parents=True)
    assert not repository.ours
    with pytest.raises(HpcError, match="is no application"):
        repository.create()


def test_an_archive_becomes_a_commit_and_the_same_archive_the_same_commit(repository, tmp_path):
    repository.create()
    first = repository.commit_archive(archive(("a.c", b"x"), ("data/b", b"y")), "alice", 1)
    assert repository.commit_archive(archive(("data/b", b"y"), ("a.c", b"x")), "alice", 1) == first
    second = repository.commit_archive(archive(("a.c", b"z")), "alice", 1)
    assert repository.git("log", "--format=%H", "playbook").split() == [second, first]
    place = tmp_path / "out"
    place.mkdir()
    assert sorted(repository.export(first, place, 1)) == ["a.c", "data/b"]
    assert (place / "data/b").read_text() == "y"
    repository.point_head("refs/heads/playbook")
    assert repository.resolve("HEAD") == second
    assert repository.branches() == ["playbook"]


@pytest.mark.parametrize("name", ["--output=x", "nothing", "a b", ""])
def test_a_name_that_is_no_commit_is_refused(repository, name):
    repository.create()
    with pytest.raises(InvalidInput):
        repository.resolve(name)


@pytest.mark.parametrize(
    ("members", "complaint"),
    [
        ([("../evil", b"x")], "leads out of it"),
        ([("/etc/evil", b"x")], "leads out of it"),
        ([("a/../../evil", b"x")], "leads out of it"),
        ([(".git/hooks/post-checkout", b"x")], "leads out of it"),
        ([("a/.GIT/config", b"x")], "leads out of it"),
        ([("a", {"type": tarfile.SYMTYPE, "linkname": "/etc"})], "which leads out of it"),
        ([("a", {"type": tarfile.SYMTYPE, "linkname": "../x"})], "which leads out of it"),
        ([("a", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})], "no plain file"),
        ([("a", {"type": tarfile.FIFOTYPE})], "no plain file"),
        ([("a", {"type": tarfile.CHRTYPE})], "no plain file"),
        ([("big", b"x" * 1_000_001)], "more than 1 MB"),
    ],
)
def test_an_archive_that_leads_out_of_its_tree_or_is_too_big_is_refused(members, complaint, tmp_path):
    place = tmp_path / "tree"
    place.mkdir()
    with pytest.raises(InvalidInput, match=complaint):
        extract(archive(*members), place, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_nothing_is_written_through_a_link_of_the_archive(tmp_path):
    place = tmp_path / "tree"
    place.mkdir()
    link = {"type": tarfile.SYMTYPE, "linkname": "real"}
    with pytest.raises(OSError, match="exists"):
        extract(archive(("here", link), ("here/file", b"x"), ("real/a", b"y")), place, 1)
    assert [path.name for path in (place / "real").iterdir()] == ["a"]


def test_what_is_no_archive_is_refused(tmp_path):
    with pytest.raises(InvalidInput, match="can't be read"):
        extract(io.BytesIO(b"nonsense" * 100), tmp_path, 1)


def test_a_second_push_waits_for_the_first(repository):
    repository.create()
    order = []
    with repository.lock(lambda: order.append("never")) as handle:
        told = threading.Event()

        def second():
            with repository.lock(told.set):
                order.append("second")

        thread = threading.Thread(target=second)
        thread.start()
        assert told.wait(10)
        order.append("first")
        assert handle > 2
    thread.join(10)
    assert order == ["first", "second"]


def test_only_changed_branches_count():
    zero, new = "0" * 40, "1" * 40
    lines = [f"{zero} {new} refs/heads/main", f"{new} {zero} refs/heads/old", f"{zero} {new} refs/tags/v1"]
    assert repositories.pushed(lines) == [(new, "refs/heads/main")]


def test_git_is_told_which_hooks_there_are_whatever_the_repository_says(repository, tmp_path):
    repository.create()
    library = tmp_path / "lib"
    (library / "hooks").mkdir(parents=True)
    evil = repository.path / "hooks"
    evil.mkdir()
    for place, word in ((evil, "evil"), (library / "hooks", "ours")):
        (place / "pre-receive").write_text(f"#!/bin/sh\necho {word} >>{tmp_path}/ran\n")
        (place / "pre-receive").chmod(0o755)
    repository.git("config", "core.hooksPath", str(evil))
    program = tmp_path / "receive"
    words = " ".join(
        f"'{word}'" for word in repositories.receive_argv(Settings("none", "", "", "", str(library)), repository.path)
    )
    program.write_text(f"#!/bin/sh\nexec {words}\n")
    program.chmod(0o755)
    tree = tmp_path / "tree"
    git = ["git", "-C", str(tree), "-c", "user.name=x", "-c", "user.email=x"]
    subprocess.run(["git", "init", "--quiet", str(tree)], check=True)
    subprocess.run([*git, "commit", "--quiet", "--allow-empty", "--message=x"], check=True)
    argv = [*git, "push", "--quiet", f"--receive-pack={program}", str(repository.path), "HEAD:refs/heads/main"]
    subprocess.run(argv, check=True)
    assert (tmp_path / "ran").read_text() == "ours\n"


def test_a_hook_passes_on_only_what_names_the_objects_of_the_push():
    before = {"GIT_QUARANTINE_PATH": "/q", "GIT_DIR": ".", "LD_PRELOAD": "x"}
    assert repositories.environment_of_git(before) == {"GIT_QUARANTINE_PATH": "/q"}
