# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import grp
import os
import pwd

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _config_files as subject
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput

ME = pwd.getpwuid(os.geteuid()).pw_name
MINE = grp.getgrgid(os.getegid()).gr_name
RIGHTS = {"owner": ME, "group": MINE}


class Tree:
    """A host in a temporary directory."""

    def __init__(self, root):
        self.root = root
        (root / "etc").mkdir()
        self.refuse = False
        self.validated = []
        self.host = subject.Host(self.run, str(root))

    def run(self, argv, stdin=None):
        self.validated.append(argv)
        return (1, "", f"{argv[-1]}: line 1: bad") if self.refuse else (0, "", "")

    def call(self, files=(), directories=(), check=False):
        wanted = subject.parse_files([{**RIGHTS, **item} for item in files])
        places = subject.parse_directories([{**RIGHTS, **item} for item in directories])
        before = self.host.records()
        actions, after = subject.plan(wanted, places, before, self.host.look, self.host.original, foretell=check)
        if not check:
            subject.apply(self.host, actions, before, after)
        return [action.path for action in actions]

    def text(self, path):
        return self.host.at(path).read_text()

    def everything(self):
        return sorted(str(path.relative_to(self.root)) for path in self.root.rglob("*"))


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


A = {"path": "/etc/a", "content": "new\n"}
A_GONE = {"path": "/etc/a", "state": "absent"}


def test_a_file_is_written_once(tree):
    assert tree.call([A]) == ["/etc/a"]
    assert tree.text("/etc/a") == "new\n"
    assert tree.call([A]) == []


def test_check_mode_tells_the_same_and_writes_nothing(tree):
    assert tree.call([A], check=True) == ["/etc/a"]
    assert tree.everything() == ["etc"]


def test_the_mode_is_kept_right(tree):
    tree.call([{**A, "mode": "0600"}])
    assert tree.host.at("/etc/a").stat().st_mode & 0o777 == 0o600
    tree.host.at("/etc/a").chmod(0o644)
    assert tree.call([{**A, "mode": "0600"}]) == ["/etc/a"]


def test_a_file_that_was_not_there_before_is_gone_after_removal_and_nothing_is_left(tree):
    tree.call([A])
    assert tree.call([A_GONE]) == ["/etc/a"]
    assert tree.call([A_GONE]) == []
    assert tree.host.at("/etc/a").exists() is False
    assert [path for path in tree.everything() if "turnkey" in path] == []


def test_an_original_comes_back_with_its_rights_however_often_the_file_was_changed(tree):
    tree.host.at("/etc/a").write_text("original\n")
    tree.host.at("/etc/a").chmod(0o640)
    tree.call([A])
    tree.call([{**A, "content": "newer\n"}])
    tree.call([A_GONE])
    assert tree.text("/etc/a") == "original\n"
    assert tree.host.at("/etc/a").stat().st_mode & 0o777 == 0o640
    tree.call([A_GONE])
    assert tree.text("/etc/a") == "original\n"


def test_an_original_link_comes_back_as_a_link(tree):
    tree.host.at("/etc/a").symlink_to("elsewhere")
    tree.call([A])
    assert not tree.host.at("/etc/a").is_symlink()
    tree.call([A_GONE])
    assert os.readlink(tree.host.at("/etc/a")) == "elsewhere"  # noqa: PTH115


def test_saved_originals_are_for_root_only(tree):
    tree.host.at("/etc/a").write_text("secret\n")
    tree.call([A])
    assert (tree.host.state / "originals").stat().st_mode & 0o777 == 0o700


def test_a_file_that_was_right_already_stays_its_owner_s(tree):
    tree.host.at("/etc/a").write_text("new\n")
    tree.host.at("/etc/a").chmod(0o644)
    assert tree.call([A]) == []
    tree.call([A_GONE])
    assert tree.text("/etc/a") == "new\n"


def test_a_file_of_others_is_never_removed(tree):
    tree.host.at("/etc/a").write_text("theirs\n")
    assert tree.call([A_GONE]) == []
    assert tree.text("/etc/a") == "theirs\n"


def test_a_run_that_was_killed_before_it_wrote_still_knows_the_original(tree):
    tree.host.at("/etc/a").write_text("original\n")
    before = tree.host.records()
    files = subject.parse_files([{**RIGHTS, **A}])
    actions, after = subject.plan(files, [], before, tree.host.look, tree.host.original)

    def killed(action):
        raise KeyboardInterrupt

    tree.host.put = killed
    with pytest.raises(KeyboardInterrupt):
        subject.apply(tree.host, actions, before, after)
    del tree.host.put
    tree.call([A])
    tree.call([A_GONE])
    assert tree.text("/etc/a") == "original\n"


def test_directories_are_made_from_the_top_and_removed_from_the_bottom_if_they_are_empty(tree):
    below, top = {"path": "/etc/d/e"}, {"path": "/etc/d"}
    files = [{"path": "/etc/d/e/f", "content": ""}]
    assert tree.call(files, [below, top]) == ["/etc/d", "/etc/d/e", "/etc/d/e/f"]
    assert tree.call(files, [below, top]) == []
    gone = [{**directory, "state": "absent"} for directory in (below, top)]
    tree.call([{"path": "/etc/d/e/f", "state": "absent"}], gone)
    assert tree.everything() == ["etc", "var", "var/lib"]


def test_a_directory_with_data_of_others_stays(tree):
    tree.call([], [{"path": "/etc/d"}])
    tree.host.at("/etc/d/data").write_text("")
    assert tree.call([], [{"path": "/etc/d", "state": "absent"}]) == []
    assert tree.host.at("/etc/d/data").exists()


def test_data_of_others_goes_with_the_directory_that_we_made_if_it_is_to_be_wiped(tree):
    wiped = {"path": "/etc/d", "state": "absent", "wipe": True}
    tree.call([], [{"path": "/etc/d"}])
    tree.host.at("/etc/d/data").write_text("")
    assert tree.call([], [wiped]) == ["/etc/d"]
    tree.host.at("/etc/d").mkdir()
    tree.host.at("/etc/d/data").write_text("")
    assert tree.call([], [wiped]) == [], "this one is not ours"


def test_a_directory_that_was_there_before_stays(tree):
    tree.host.at("/etc/d").mkdir(mode=0o755)
    tree.call([], [{"path": "/etc/d"}])
    assert tree.call([], [{"path": "/etc/d", "state": "absent"}]) == []


def test_a_missing_directory_is_an_error_that_names_it_but_not_in_check_mode(tree):
    item = {"path": "/etc/none/a", "content": ""}
    with pytest.raises(HpcError, match="no directory /etc/none"):
        tree.call([item])
    assert tree.call([item], check=True) == ["/etc/none/a"]


def test_a_directory_where_a_file_should_be_is_an_error(tree):
    tree.host.at("/etc/a").mkdir()
    with pytest.raises(HpcError, match="/etc/a should be a file, but is a directory"):
        tree.call([A])


def test_nothing_is_written_if_one_file_is_refused(tree):
    tree.refuse = True
    guarded = {"path": "/etc/b", "content": "x", "validate": ["checker", "-f", "%s"]}
    with pytest.raises(HpcError, match=r"/etc/b was not written, because checker refuses .*: /etc/b: line 1: bad"):
        tree.call([A, guarded])
    assert not tree.host.at("/etc/a").exists()
    tree.refuse = False
    assert tree.call([A, guarded]) == ["/etc/a", "/etc/b"]


def test_an_unchanged_file_is_not_validated_again(tree):
    guarded = {"path": "/etc/b", "content": "x", "validate": ["checker", "%s"]}
    tree.call([guarded])
    tree.call([guarded])
    assert len(tree.validated) == 1


BLOCK = {"path": "/etc/hosts", "block": "10.0.0.1 n1\n", "marker": "m"}
BLOCK_GONE = {"path": "/etc/hosts", "marker": "m", "state": "absent"}


def test_a_block_is_added_changed_in_place_and_taken_out(tree):
    tree.host.at("/etc/hosts").write_text("first\n")
    assert tree.call([BLOCK]) == ["/etc/hosts"]
    assert tree.call([BLOCK]) == []
    with tree.host.at("/etc/hosts").open("a") as stream:
        stream.write("last\n")
    tree.call([{**BLOCK, "block": "10.0.0.2 n1"}])
    assert tree.text("/etc/hosts") == "first\n# BEGIN m\n10.0.0.2 n1\n# END m\nlast\n"
    tree.call([BLOCK_GONE])
    assert tree.text("/etc/hosts") == "first\nlast\n"
    assert tree.call([BLOCK_GONE]) == []


def test_a_block_leaves_the_rights_of_the_file_alone(tree):
    tree.host.at("/etc/hosts").write_text("first\n")
    tree.host.at("/etc/hosts").chmod(0o640)
    tree.call([{**BLOCK, "mode": "0600"}])
    assert tree.host.at("/etc/hosts").stat().st_mode & 0o777 == 0o640


def test_two_blocks_of_one_file_in_one_call_both_get_there(tree):
    tree.call([BLOCK, {**BLOCK, "marker": "m 2", "block": "two"}])
    assert tree.text("/etc/hosts") == "# BEGIN m\n10.0.0.1 n1\n# END m\n# BEGIN m 2\ntwo\n# END m 2\n"
    tree.call([BLOCK_GONE])
    assert tree.text("/etc/hosts") == "# BEGIN m 2\ntwo\n# END m 2\n"
    tree.call([{**BLOCK_GONE, "marker": "m 2"}])
    assert not tree.host.at("/etc/hosts").exists()


def test_lines_that_a_block_replaces_are_put_aside_and_come_back(tree):
    text = "127.0.0.1 localhost\n127.0.1.1 n1.lab n1\n127.0.1.1 n10\n"
    tree.host.at("/etc/hosts").write_text(text)
    item = {**BLOCK, "replaces": r"\sn1(\s|$)"}
    tree.call([item])
    assert "#[m] 127.0.1.1 n1.lab n1\n127.0.1.1 n10\n" in tree.text("/etc/hosts")
    assert tree.call([item]) == []
    tree.call([BLOCK_GONE])
    assert tree.text("/etc/hosts") == text


def test_a_last_line_without_an_end_is_not_joined_with_the_block():
    assert subject.with_block("x", "b", "m") == "x\n# BEGIN m\nb\n# END m\n"


def test_bytes_that_are_no_text_survive_a_block(tree):
    tree.host.at("/etc/hosts").write_bytes(b"\xff\n")
    tree.call([BLOCK])
    tree.call([BLOCK_GONE])
    assert tree.host.at("/etc/hosts").read_bytes() == b"\xff\n"


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"path": "etc/a", "content": ""}], "not absolute"),
        ([{"path": "/etc/../a", "content": ""}], "not absolute"),
        ([{"path": "/etc/a"}], "exactly one of"),
        ([{"path": "/etc/a", "content": "", "block": ""}], "exactly one of"),
        ([{"path": "/etc/a", "content": "", "marker": "m"}], "marker belongs to a block"),
        ([A, A], "listed twice"),
        ([A, {"path": "/etc/a", "block": "x"}], "listed twice"),
        ([{**A, "mode": "rw"}], "mode 'rw' of /etc/a"),
        ([{**A, "validate": ["checker"]}], "placeholder"),
        ([{**A, "replaces": "x"}], "only a block"),
        ([{**BLOCK, "replaces": "("}], "no regular expression"),
    ],
)
def test_wrong_input_is_refused(items, message):
    with pytest.raises(InvalidInput, match=message):
        subject.parse_files(items)


def test_an_unknown_owner_is_named(tree):
    with pytest.raises(HpcError, match="user 'nobody-here'"):
        tree.call([{**A, "owner": "nobody-here"}])


def test_the_diff_shows_contents_and_rights():
    before = subject.Node("file", b"old\n", mode=0o644, owner="root", group="root")
    after = subject.Node("file", b"new\n", mode=0o600, owner="root", group="root")
    diff = subject.Action("/etc/a", before, after).diff
    assert diff["before"] == "# file 0644 root:root\nold\n"
    assert diff["after"] == "# file 0600 root:root\nnew\n"


def test_the_diff_of_a_secret_shows_that_it_changes_and_not_what_it_is():
    before, after = (
        subject.Node("file", text, mode=0o600, owner="root", group="root") for text in (b"old\n", b"new\n")
    )
    diff = subject.Action("/etc/key", before, after, secret=True).diff
    assert "old" not in str(diff)
    assert "new" not in str(diff)
    made = subject.Action("/etc/key", subject.ABSENT, after, secret=True).diff
    assert made["before"] != made["after"]
    assert "new" not in str(made)
