# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils import _packages
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._packages import Package, Paths, Records

UNKNOWN = "E: Unable to locate package {}\n"


class Debian:
    """A host with packages, as far as dpkg and apt-get tell of it."""

    def __init__(self, installed=(), available=None, lists=True, paths=None):
        self.status = dict.fromkeys(installed, "installed")
        self.available = available if available is not None else {}
        self.calls = []
        self.fail = {}
        self.paths = paths
        self.stale = set()
        if lists:
            self.refresh()

    def refresh(self):
        self.paths.lists.mkdir(parents=True, exist_ok=True)
        (self.paths.lists / "deb_Packages.lz4").write_text("")

    def closure(self, names):
        found = set()
        todo = list(names)
        while todo:
            name = todo.pop()
            if name not in found and self.status.get(name) != "installed":
                found.add(name)
                todo += self.available[name]
        return found

    def __call__(self, argv, stdin=None):
        self.calls.append(argv)
        names = [part for part in argv[2:] if not part.startswith("-")]
        tool = argv[1] if argv[0] == "apt-get" else argv[0]
        if argv[0] == "dpkg-query":
            lines = []
            for name, status in self.status.items():
                depends = ", ".join(self.available.get(name, []))
                lines.append(f"{name}\t{status}\tok\tno\t\t\t{depends}\t\n")
            return 0, "".join(lines), ""
        if "--simulate" in argv:
            if tool == "install":
                unknown = [name for name in names if name not in self.available or name in self.stale]
                if unknown:
                    return 100, "", "".join(UNKNOWN.format(name) for name in unknown)
                return 0, "".join(f"Inst {name} (1 Debian [all])\n" for name in self.closure(names)), ""
            return 0, "".join(f"Purg {name} [1]\n" for name in names), ""
        if self.fail.get(tool):
            return 100, "", self.fail[tool].pop(0)
        if tool == "update":
            self.refresh()
            self.stale.clear()
        elif tool in ("userdel", "groupdel"):
            path = self.paths.passwd if tool == "userdel" else self.paths.group
            path.write_text("".join(f"{line}\n" for line in path.read_text().splitlines() if line != f"{argv[1]}:x"))
        elif tool == "install":
            self.policy = self.paths.policy.exists()
            if "daemon" in names:
                self.paths.passwd.write_text(self.paths.passwd.read_text() + "_daemon:x\n")
                self.paths.group.write_text(self.paths.group.read_text() + "_daemon:x\nrdma:x\n")
            for name in self.closure(names):
                self.status[name] = "installed"
        elif tool == "purge":
            for name in names:
                del self.status[name]
        elif tool == "dpkg":
            self.status = dict.fromkeys(self.status, "installed")
        return 0, "", ""

    def count(self, *words):
        return sum(1 for call in self.calls if all(word in call for word in words) and "--simulate" not in call)


@pytest.fixture
def paths(tmp_path):
    return Paths(
        records=tmp_path / "turnkey" / "packages.json",
        lists=tmp_path / "lists",
        passwd=tmp_path / "passwd",
        group=tmp_path / "group",
        policy=tmp_path / "policy-rc.d",
    )


AVAILABLE = {"mpi": ["libc", "hwloc"], "hwloc": ["libc"], "tool": ["hwloc"], "libc": [], "time": ["libc"]}


@pytest.fixture
def present(paths):
    def call(debian, names, owner="role", **more):
        return _packages.ensure_present(debian, names, owner, paths=paths, pause=lambda seconds: None, **more)

    return call


@pytest.fixture
def absent(paths):
    def call(debian, owner="role", **more):
        return _packages.ensure_absent(debian, owner, paths=paths, pause=lambda seconds: None, **more)

    return call


def test_what_is_installed_costs_one_query_and_needs_no_lists(paths, present):
    debian = Debian(["libc", "hwloc"], AVAILABLE, lists=False, paths=paths)
    outcome = present(debian, ["hwloc"])
    assert not outcome.changed
    assert len(debian.calls) == 1
    assert not paths.records.exists()


def test_a_bare_host_without_lists_is_refreshed_exactly_once(paths, present):
    debian = Debian(["libc"], AVAILABLE, lists=False, paths=paths)
    assert present(debian, ["mpi"]).installed == ["hwloc", "mpi"]
    assert debian.count("update") == 1
    assert debian.count("install") == 1


def test_with_lists_that_serve_nothing_is_refreshed(paths, present):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    present(debian, ["mpi"])
    assert debian.count("update") == 0


def test_lists_that_do_not_know_a_package_are_refreshed_once(paths, present):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    debian.stale = {"mpi"}
    present(debian, ["mpi"])
    assert debian.count("update") == 1


def test_lists_whose_files_are_gone_are_refreshed_once(paths, present):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    debian.fail["install"] = ["E: Failed to fetch http://deb/x 404 Not Found\n"]
    assert present(debian, ["mpi"]).changed
    assert debian.count("update") == 1


def test_unknown_packages_are_named_after_a_refresh(paths, present):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    with pytest.raises(InvalidInput, match="No package to install for: nope, nothere"):
        present(debian, ["mpi", "nothere", "nope"])
    assert debian.count("update") == 1
    assert debian.count("install") == 0


def test_names_with_options_versions_or_architectures_are_refused(paths, present):
    with pytest.raises(InvalidInput, match="--force"):
        present(Debian([], AVAILABLE, paths=paths), ["--force", "mpi=1"])


def test_a_failed_installation_names_the_packages_the_last_lines_and_a_remedy(paths, present):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    debian.fail["install"] = ["E: no space left on device\n"]
    with pytest.raises(HpcError, match=r"(?s)Installing mpi failed.*no space left.*Remedy"):
        present(debian, ["mpi"])
    assert not paths.policy.exists()
    assert not paths.records.exists()


def test_services_are_kept_from_starting_only_while_installing(paths, present):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    present(debian, ["mpi"])
    assert debian.policy
    assert not paths.policy.exists()


def test_the_host_s_own_policy_is_left_alone(paths, present):
    paths.policy.write_text("#!/bin/sh\nexit 0\n")
    present(Debian(["libc"], AVAILABLE, paths=paths), ["mpi"])
    assert paths.policy.read_text() == "#!/bin/sh\nexit 0\n"


def test_a_lock_held_by_another_program_is_waited_for(paths, present):
    debian = Debian(["libc"], AVAILABLE, lists=False, paths=paths)
    debian.fail["update"] = ["E: Could not get lock /var/lib/apt/lists/lock\n"] * 3
    assert present(debian, ["mpi"]).changed
    assert debian.count("update") == 4


def test_an_interrupted_installation_is_finished_first(paths, present):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    debian.status["mpi"] = "half-configured"
    debian.status["hwloc"] = "installed"
    present(debian, ["mpi"])
    assert debian.count("dpkg", "--configure") == 1
    assert debian.count("install") == 0
    assert debian.status["mpi"] == "installed"


def test_check_mode_without_lists_tells_what_is_missing_and_touches_nothing(paths, present):
    debian = Debian(["libc"], AVAILABLE, lists=False, paths=paths)
    assert present(debian, ["mpi", "nothere"], check_mode=True).installed == ["mpi", "nothere"]
    assert len(debian.calls) == 1
    assert not paths.records.exists()


def test_check_mode_with_lists_tells_the_dependencies_too(paths, present):
    outcome = present(Debian(["libc"], AVAILABLE, paths=paths), ["mpi"], check_mode=True)
    assert outcome.diff["after"] == "hwloc\nmpi\n"


def test_removal_takes_what_came_and_leaves_what_was_there(paths, present, absent):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    present(debian, ["mpi", "libc"])
    assert absent(debian).removed == ["hwloc", "mpi"]
    assert list(debian.status) == ["libc"]
    assert not paths.records.parent.exists()


def test_removal_twice_or_on_a_host_that_never_had_it_does_nothing(paths, absent):
    debian = Debian(["libc", "mpi"], AVAILABLE, paths=paths)
    assert not absent(debian).changed
    assert debian.calls == []


def test_a_package_that_another_owner_asked_for_stays_until_that_owner_goes(paths, present, absent):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    present(debian, ["mpi"], owner="one")
    present(debian, ["hwloc"], owner="two")
    outcome = absent(debian, owner="one")
    assert outcome.removed == ["mpi"]
    assert outcome.warnings == []
    assert absent(debian, owner="two").removed == ["hwloc"]


def test_a_dependency_that_another_owner_needs_stays_and_goes_with_that_owner(paths, present, absent):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    present(debian, ["mpi"], owner="one")
    present(debian, ["tool"], owner="two")
    outcome = absent(debian, owner="one")
    assert outcome.removed == ["mpi"]
    assert outcome.warnings == ["hwloc stays installed: tool depends on it."]
    assert absent(debian, owner="two").removed == ["hwloc", "tool"]
    assert not paths.records.exists()


def test_nothing_goes_if_apt_would_take_something_else_along(paths, present, absent):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    present(debian, ["mpi"])

    def run(argv, stdin=None):
        rc, out, err = debian(argv, stdin)
        return rc, out + ("Remv libc [1]\n" if argv[:2] == ["apt-get", "purge"] else ""), err

    outcome = _packages.ensure_absent(run, "role", paths=paths)
    assert outcome.removed == []
    assert "libc" in outcome.warnings[0]
    assert "mpi" in debian.status


def test_a_package_that_had_to_go_comes_back(paths, absent):
    paths.records.parent.mkdir(parents=True)
    paths.records.write_text('{"owners": {"role": ["mpi"]}, "displaced": {"role": ["time"]}}')
    debian = Debian(["libc", "mpi"], AVAILABLE, paths=paths)
    outcome = absent(debian)
    assert (outcome.removed, outcome.installed) == (["mpi"], ["time"])
    assert "time" in debian.status


def test_check_mode_of_a_removal_changes_nothing(paths, present, absent):
    debian = Debian(["libc"], AVAILABLE, paths=paths)
    present(debian, ["mpi"])
    before = paths.records.read_text()
    assert absent(debian, check_mode=True).removed == ["hwloc", "mpi"]
    assert debian.count("purge") == 0
    assert paths.records.read_text() == before


def test_dpkg_s_records_are_read():
    text = (
        "libc6\tinstalled\tok\tno\tyes\tlibgcc-s1\t\t\n"
        "chrony\tinstalled\tok\tno\t\tinit-system-helpers (>= 1.54~)\tadduser, libc6 (>= 2.36), a | b:any\t"
        "time-daemon, ntpd (= 1)\n"
        "half\tunpacked\treinstreq\tno\t\t\t\t\n"
        "multi\tinstalled\tok\tno\t\t\t\t\nmulti\tconfig-files\tok\tno\t\t\t\t\n"
    )
    found = _packages.parse_packages(text)
    assert found["libc6"].vital
    assert found["chrony"].depends == (("init-system-helpers",), ("adduser",), ("libc6",), ("a", "b"))
    assert found["chrony"].provides == ("time-daemon", "ntpd")
    assert found["half"].halfway
    assert not found["half"].installed
    assert found["multi"].installed


def test_packages_without_a_candidate_are_found_in_apt_s_words():
    err = (
        "E: Unable to locate package nope\n"
        "E: Package 'mail-transport-agent' has no installation candidate\n"
        "Package old is not available, but is referred to by another package.\n"
    )
    assert _packages.parse_unknown(err) == ["mail-transport-agent", "nope"]


@pytest.mark.parametrize(
    ("packages", "going"),
    [
        ([Package("a")], {"a"}),
        ([Package("a", vital=True)], set()),
        ([Package("a"), Package("user", depends=(("a",),))], set()),
        ([Package("a"), Package("b", depends=(("a",),))], {"a", "b"}),
        ([Package("a"), Package("own"), Package("user", depends=(("a", "own"),))], {"a"}),
        ([Package("a", provides=("virtual",)), Package("user", depends=(("virtual",),))], set()),
        ([Package("a", status="not-installed")], set()),
        ([Package("a", status="config-files")], {"a"}),
        ([Package("a"), Package("b", depends=(("a",),)), Package("user", depends=(("b",),))], set()),
    ],
)
def test_only_what_nothing_else_needs_is_removed(packages, going):
    records = Records(owners={"role": {"a", "b"}})
    assert _packages.plan_absent({package.name: package for package in packages}, records, "role")[0] == going


def test_the_system_accounts_that_packages_made_go_with_them(paths):
    paths.passwd.write_text("root:x\nalice:x\n")
    paths.group.write_text("root:x\nalice:x\n")
    host = Debian(["base"], {"daemon": []}, paths=paths)
    _packages.ensure_present(host, ["daemon"], "role", paths=paths)
    assert "_daemon" in paths.passwd.read_text()
    outcome = _packages.ensure_absent(host, "role", paths=paths)
    assert outcome.warnings == []
    assert paths.passwd.read_text() == "root:x\nalice:x\n"
    assert paths.group.read_text() == "root:x\nalice:x\n"
    assert not paths.records.exists()


def test_an_account_that_was_there_before_its_package_stays(paths):
    paths.passwd.write_text("_daemon:x\n")
    paths.group.write_text("_daemon:x\nrdma:x\n")
    host = Debian(["base", "daemon"], {"daemon": []}, paths=paths)
    _packages.ensure_present(host, ["daemon"], "role", paths=paths)
    _packages.ensure_absent(host, "role", paths=paths)
    assert paths.passwd.read_text() == "_daemon:x\n"


def test_an_upgrade_finishes_what_was_interrupted_and_starts_no_service(paths):
    class Recorder(Debian):
        def closure(self, names):
            return set()  # versions are given, dependencies are there

    host = Recorder(installed=["slurmd"], paths=paths)
    host.status["slurmd"] = "half-configured"
    _packages.upgrade(host, {"slurmd": "2", "libslurm": "2"}, paths)
    assert [argv[0] for argv in host.calls] == ["dpkg-query", "dpkg", "apt-get"]
    assert host.calls[-1][1:3] == ["install", "--only-upgrade"]
    assert host.calls[-1][-2:] == ["libslurm=2", "slurmd=2"]
    assert host.policy
    assert not paths.policy.exists()


def test_an_upgrade_of_nothing_calls_no_apt_and_one_that_fails_says_why(paths):
    host = Debian(installed=["slurmd"], paths=paths)
    _packages.upgrade(host, {}, paths)
    assert [argv[0] for argv in host.calls] == ["dpkg-query"]
    host.fail["install"] = ["E: broken\n"]
    with pytest.raises(HpcError, match=r"Upgrading slurmd=2 failed: E: broken"):
        _packages.upgrade(host, {"slurmd": "2"}, paths)
