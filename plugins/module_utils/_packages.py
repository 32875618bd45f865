# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Debian packages: what is missing, what to install, what may go again. Everything that decides is pure."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable

from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError, InvalidInput, join_problems
from ansible_collections.turnkey.hpc.plugins.module_utils._state import STATE_DIR, Run, load_json, save_json

__all__ = [
    "ENVIRONMENT",
    "Outcome",
    "Package",
    "Paths",
    "Records",
    "ensure_absent",
    "ensure_present",
    "parse_packages",
    "parse_simulation",
    "parse_unknown",
    "plan_absent",
    "refresh_lists",
    "upgrade",
]

ENVIRONMENT = {"DEBIAN_FRONTEND": "noninteractive", "APT_LISTCHANGES_FRONTEND": "none"}

LOCK_SECONDS = 120
NAME = re.compile(r"^[a-z0-9][a-z0-9+.-]+$")
QUERY = [
    "dpkg-query",
    "--show",
    "--showformat",
    r"${Package}\t${db:Status-Status}\t${db:Status-Eflag}\t${Essential}\t${Protected}"
    r"\t${Pre-Depends}\t${Depends}\t${Provides}\n",
]
OPTIONS = [
    "--yes",
    "--quiet",
    "--no-install-recommends",
    "--option=DPkg::Lock::Timeout=120",
    "--option=Dpkg::Use-Pty=false",
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
    "--option=APT::Keep-Downloaded-Packages=false",
]
# apt-get waits for dpkg's lock, but not for that of its lists; dpkg itself never waits.
LOCKED = re.compile(r"Could not get lock|Unable to lock|is locked by another process|lock was locked")
STALE_LISTS = re.compile(r"^E: (Failed to fetch|Unable to fetch)", re.MULTILINE)
POLICY = """#!/bin/sh
# Written by turnkey.hpc while it installs packages: nothing is started before it is configured.
exit 101
"""
HALF_STATES = {"half-installed", "unpacked", "half-configured", "triggers-awaited", "triggers-pending"}


@dataclass(frozen=True)
class Package:
    """One package as dpkg knows it."""

    name: str
    status: str = "installed"
    damaged: bool = False
    vital: bool = False
    depends: tuple[tuple[str, ...], ...] = ()
    provides: tuple[str, ...] = ()

    @property
    def installed(self) -> bool:
        """Whether it is there and configured (a trigger that waits for others doesn't matter)."""
        return self.status in ("installed", "triggers-awaited", "triggers-pending") and not self.damaged

    @property
    def halfway(self) -> bool:
        """Whether an earlier run of dpkg was interrupted at this package."""
        return self.damaged or self.status in HALF_STATES


@dataclass(frozen=True)
class Paths:
    """Where things lie on the host. Tests put them below a directory of their own."""

    records: Path = Path(STATE_DIR) / "packages.json"
    lists: Path = Path("/var/lib/apt/lists")
    passwd: Path = Path("/etc/passwd")
    group: Path = Path("/etc/group")
    policy: Path = Path("/usr/sbin/policy-rc.d")


@dataclass
class Outcome:
    """What a call did, or would do."""

    installed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything differs afterwards."""
        return bool(self.installed or self.removed)

    @property
    def diff(self) -> dict[str, str]:
        """The same for ``--diff``."""
        return {
            "before_header": "packages",
            "after_header": "packages",
            "before": "".join(f"{name}\n" for name in sorted(self.removed)),
            "after": "".join(f"{name}\n" for name in sorted(self.installed)),
        }


@dataclass
class Records:
    """Which packages came by us, and for whom.

    ``owners``: per owner, the packages that it brought, and those of its wishes that another owner had brought.
    ``displaced``: per owner, the packages of the host that had to go (chrony pushes out systemd-timesyncd).
    ``accounts``: per owner, the system users and groups that its packages made ("user statd", "group rdma"); Debian's
    packages leave theirs behind when they are purged.
    ``leftover``: packages of former owners that something else still needed when they left.
    """

    owners: dict[str, set[str]] = field(default_factory=dict)
    displaced: dict[str, set[str]] = field(default_factory=dict)
    accounts: dict[str, set[str]] = field(default_factory=dict)
    leftover: set[str] = field(default_factory=set)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Records:
        """Read what ``as_dict`` wrote."""
        return cls(
            owners={owner: set(names) for owner, names in data.get("owners", {}).items()},
            displaced={owner: set(names) for owner, names in data.get("displaced", {}).items()},
            accounts={owner: set(names) for owner, names in data.get("accounts", {}).items()},
            leftover=set(data.get("leftover", [])),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what is stored; empty parts are left out."""
        return {
            "owners": {owner: sorted(names) for owner, names in self.owners.items() if names},
            "displaced": {owner: sorted(names) for owner, names in self.displaced.items() if names},
            "accounts": {owner: sorted(names) for owner, names in self.accounts.items() if names},
            "leftover": sorted(self.leftover),
        }

    def ours(self) -> set[str]:
        """Return every package that came by us."""
        return set().union(self.leftover, *self.owners.values())

    def of(self, owner: str) -> set[str]:
        """Return the packages of ``owner``."""
        return self.owners.get(owner, set())

    def claim(self, owner: str, names: set[str]) -> None:
        """Note that ``owner`` wants ``names``, of which those count that came by us."""
        known = names & self.ours()
        if known:
            self.owners[owner] = self.of(owner) | known
            self.leftover -= known

    def claimed_by_others(self, owner: str) -> set[str]:
        """Return the packages that an owner other than ``owner`` has."""
        return set().union(*(names for other, names in self.owners.items() if other != owner))


def _alternatives(text: str) -> Iterator[tuple[str, ...]]:
    """Split a Depends field into groups of names of which one is enough: versions and architectures are left out."""
    for group in text.split(","):
        names = tuple(re.split(r"[\s:(\[<]", part.strip(), maxsplit=1)[0] for part in group.split("|"))
        if any(names):
            yield tuple(name for name in names if name)


def parse_packages(text: str) -> dict[str, Package]:
    """Read the output of ``QUERY``. A package of two architectures counts as installed if one of them is."""
    packages: dict[str, Package] = {}
    for line in text.splitlines():
        name, status, flag, essential, protected, pre_depends, depends, provides = line.split("\t")
        package = Package(
            name=name,
            status=status,
            damaged=flag == "reinstreq",
            # Not the priority "required": Debian gives it to tzdata, without which a system lives well.
            vital="yes" in (essential, protected),
            depends=tuple(_alternatives(pre_depends)) + tuple(_alternatives(depends)),
            provides=tuple(one for group in _alternatives(provides) for one in group),
        )
        if name not in packages or package.installed:
            packages[name] = package
    return packages


def parse_simulation(text: str) -> tuple[set[str], set[str]]:
    """Return the names that ``apt-get --simulate`` would unpack, and those that it would remove."""
    unpacked, removed = set(), set()
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "Inst":
            unpacked.add(words[1].split(":")[0])
        elif len(words) > 1 and words[0] in ("Remv", "Purg"):
            removed.add(words[1].split(":")[0])
    return unpacked, removed


def parse_unknown(err: str) -> list[str]:
    """Return the names that apt-get can't find, or for which it has no package to install."""
    found = re.findall(r"Unable to locate package (\S+)|Package '?([^'\s]+)'? has no installation candidate", err)
    return sorted({first or second for first, second in found})


def plan_absent(packages: dict[str, Package], records: Records, owner: str) -> tuple[set[str], dict[str, str]]:
    """Return what of ``owner`` may be purged, and why the rest stays (name -> reason).

    Only what came by us goes, and of that only what no other owner claims and nothing that stays depends on.
    """
    wanted = (records.of(owner) | records.leftover) - records.claimed_by_others(owner)
    going = {name for name in wanted if name in packages and packages[name].status != "not-installed"}
    kept = {name: "the system needs it" for name in going if packages[name].vital}
    going -= set(kept)
    staying = [package for package in packages.values() if package.installed and package.name not in going]
    while staying:
        package = staying.pop()
        for group in package.depends:
            providers = [
                other
                for other in packages.values()
                if other.installed and (other.name in group or set(other.provides) & set(group))
            ]
            if all(other.name in going for other in providers):
                for other in providers:
                    going.discard(other.name)
                    kept[other.name] = f"{package.name} depends on it"
                    staying.append(other)
    return going, {name: reason for name, reason in kept.items() if name in records.of(owner)}


class _Apt:
    """The calls of apt-get and dpkg."""

    def __init__(self, run: Run, paths: Paths, pause: Callable[[float], None]) -> None:
        self.run = run
        self.paths = paths
        self.pause = pause

    def call(self, argv: list[str]) -> tuple[int, str, str]:
        """Run ``argv``, again and again for two minutes while another program holds the lock."""
        for _attempt in range(LOCK_SECONDS // 2):
            result: tuple[int, str, str] = self.run(argv, None)
            if result[0] == 0 or not LOCKED.search(result[2]):
                break
            self.pause(2)
        return result

    def packages(self) -> dict[str, Package]:
        """Return all packages that dpkg knows."""
        rc, out, err = self.run(QUERY, None)
        if rc != 0:
            raise _failure("dpkg-query", err, "this collection needs a Debian system with a sound dpkg database.")
        return parse_packages(out)

    def has_lists(self) -> bool:
        """Whether package lists were ever fetched."""
        return any(self.paths.lists.glob("*_Packages*"))

    def refresh(self) -> None:
        """Fetch the package lists."""
        rc, _out, err = self.call(["apt-get", "update", "--quiet"])
        if rc != 0:
            raise _failure("apt-get update", err, "check the host's package sources and its network, then run again.")

    def heal(self) -> None:
        """Finish what an interrupted dpkg left halfway."""
        with self.no_services():
            rc, _out, err = self.call(["dpkg", "--configure", "-a", "--force-confdef", "--force-confold"])
        if rc != 0:
            remedy = "repair the package that dpkg names (dpkg --configure -a), then run again."
            raise _failure("dpkg --configure -a", err, remedy)

    def simulate(self, verb: str, names: set[str]) -> tuple[int, str, str]:
        """Return what apt-get says it would do."""
        result: tuple[int, str, str] = self.run(["apt-get", verb, "--simulate", *OPTIONS, *sorted(names)], None)
        return result

    @contextmanager
    def no_services(self) -> Iterator[None]:
        """Keep maintainer scripts from starting services, unless the host has a policy of its own."""
        policy = self.paths.policy
        # One with our text was left by a run that was killed.
        ours = not policy.exists() or policy.read_text(encoding="utf-8", errors="replace") == POLICY
        if ours:
            policy.write_text(POLICY, encoding="utf-8")
            policy.chmod(0o755)
        try:
            yield
        finally:
            if ours:
                policy.unlink(missing_ok=True)


def _accounts(paths: Paths) -> set[str]:
    """Return the local users and groups of the host, as "user NAME" and "group NAME"."""
    found = set()
    for kind, path in (("user", paths.passwd), ("group", paths.group)):
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            found |= {f"{kind} {line.split(':')[0]}" for line in lines if ":" in line}
    return found


def _remove_accounts(apt: _Apt, paths: Paths, accounts: set[str]) -> list[str]:
    """Remove those of ``accounts`` that still are there, users first; return why some could not be removed."""
    warnings = []
    for account in sorted(accounts, reverse=True):
        if account not in _accounts(paths):
            continue
        kind, name = account.split()
        rc, _out, err = apt.run([f"{kind}del", name], None)
        if rc != 0:
            warnings.append(f"system {account} stays: {err.strip()}")
    return warnings


def _failure(what: str, err: str, remedy: str) -> HpcError:
    """Return an error with the last lines that a tool said."""
    lines = [line for line in err.splitlines() if line.strip()][-8:]
    return HpcError(f"{what} failed: " + " / ".join(lines), remedy)


def _check_names(names: list[str]) -> set[str]:
    """Refuse what can't be the name of a package."""
    bad = [name for name in names if not NAME.match(name)]
    if bad:
        raise InvalidInput(
            join_problems([f"'{name}' can't be the name of a Debian package." for name in bad]),
            "give plain package names, without versions, architectures or options.",
        )
    return set(names)


def ensure_present(
    run: Run,
    names: list[str],
    owner: str,
    check_mode: bool = False,
    paths: Paths | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Install what of ``names`` is missing; record what came, for ``owner``."""
    paths = paths or Paths()
    apt = _Apt(run, paths, pause)
    wanted = _check_names(names)
    packages = apt.packages()
    records = Records.from_dict(load_json(paths.records))
    missing = {name for name in wanted if name not in packages or not packages[name].installed}

    if missing and not check_mode and any(package.halfway for package in packages.values()):
        apt.heal()
        healed = apt.packages()
        missing = {name for name in wanted if name not in healed or not healed[name].installed}

    if check_mode:
        installed = missing
        removed: set[str] = set()
        if missing and apt.has_lists():
            rc, out, _err = apt.simulate("install", missing)
            if rc == 0:
                unpacked, removed = parse_simulation(out)
                installed = {name for name in unpacked if name not in packages or not packages[name].installed}
        return Outcome(sorted(installed), sorted(removed))

    before = {name for name, package in packages.items() if package.installed}
    after = before
    recorded = records.as_dict()
    accounts = _accounts(paths) if missing else set()
    try:
        if missing:
            _install(apt, missing, owner, records, packages)
    finally:
        # After a failure too: what came stays known, and what did not come is not claimed.
        if wanted - before:
            after = {name for name, package in apt.packages().items() if package.installed}
        records.owners[owner] = (records.of(owner) | (after - before)) & after
        records.claim(owner, wanted)
        if before - after:
            records.displaced[owner] = records.displaced.get(owner, set()) | (before - after)
        if missing:
            records.accounts[owner] = records.accounts.get(owner, set()) | (_accounts(paths) - accounts)
        if records.as_dict() != recorded or missing:
            save_json(paths.records, records.as_dict())
    return Outcome(sorted(after - before), sorted(before - after))


def _install(apt: _Apt, missing: set[str], owner: str, records: Records, packages: dict[str, Package]) -> None:
    """Install ``missing``. The lists are fetched at most once, and only if it does not work with those at hand."""
    fresh = not apt.has_lists()
    if fresh:
        apt.refresh()
    rc, out, err = apt.simulate("install", missing)
    if rc != 0 and not fresh:
        apt.refresh()
        fresh = True
        rc, out, err = apt.simulate("install", missing)
    unpacked, _removed = parse_simulation(out)
    unknown = parse_unknown(err) if rc != 0 else sorted(missing - unpacked)
    if unknown:
        raise InvalidInput(
            "No package to install for: " + ", ".join(unknown) + ".",
            "check the spelling, name a real package rather than a virtual one, "
            "or add the package source that has it, then run again.",
        )
    remedy = "see what the last lines say, repair it on the host, then run again."
    if rc != 0:
        raise _failure("Installing " + ", ".join(sorted(missing)), err, remedy)

    # Noted beforehand: a run that is killed while it installs still knows at a reset what it brought.
    noted = Records.from_dict(records.as_dict())
    brought = {name for name in unpacked if name not in packages or not packages[name].installed}
    noted.owners[owner] = noted.of(owner) | brought
    save_json(apt.paths.records, noted.as_dict())

    with apt.no_services():
        rc, _out, err = apt.call(["apt-get", "install", *OPTIONS, *sorted(missing)])
        if rc != 0 and not fresh and STALE_LISTS.search(err):
            apt.refresh()
            rc, _out, err = apt.call(["apt-get", "install", *OPTIONS, *sorted(missing)])
    if rc != 0:
        raise _failure("Installing " + ", ".join(sorted(missing)), err, remedy)


def ensure_absent(
    run: Run,
    owner: str,
    check_mode: bool = False,
    paths: Paths | None = None,
    pause: Callable[[float], None] = time.sleep,
) -> Outcome:
    """Purge what ``owner`` brought and nobody else needs; bring back what it pushed out."""
    paths = paths or Paths()
    records = Records.from_dict(load_json(paths.records))
    if not (records.of(owner) or records.displaced.get(owner) or records.leftover):
        return Outcome()
    apt = _Apt(run, paths, pause)
    packages = apt.packages()
    if not check_mode and any(package.halfway for package in packages.values()):
        apt.heal()
        packages = apt.packages()
    going, kept = plan_absent(packages, records, owner)
    outcome = Outcome(warnings=[f"{name} stays installed: {reason}." for name, reason in sorted(kept.items())])
    if going:
        rc, out, err = apt.simulate("purge", going)
        _unpacked, removed = parse_simulation(out)
        foreign = {name for name in removed - going if name in packages and packages[name].installed}
        if rc != 0 or foreign:
            reason = "it would also remove " + ", ".join(sorted(foreign)) if foreign else err.strip()
            outcome.warnings.append(f"{', '.join(sorted(going))} stay installed: {reason}.")
            kept.update(dict.fromkeys(going & records.of(owner), reason))
            going = set()
    outcome.removed = sorted(going)
    back = {
        name
        for name in records.displaced.get(owner, set())
        if (name not in packages or not packages[name].installed) and not records.of(owner) <= set(kept)
    }
    if check_mode:
        outcome.installed = sorted(back)
        return outcome

    if going:
        rc, _out, err = apt.call(["apt-get", "purge", *OPTIONS, *sorted(going)])
        if rc != 0:
            remedy = "repair it on the host, then run again."
            raise _failure("Removing " + ", ".join(sorted(going)), err, remedy)
    if back:
        if not apt.has_lists():
            apt.refresh()
        rc, _out, err = apt.call(["apt-get", "install", *OPTIONS, *sorted(back)])
        if rc == 0:
            outcome.installed = sorted(back)
        else:
            outcome.warnings.append(f"{', '.join(sorted(back))} could not be installed again: {err.strip()[-300:]}")
    if not kept:
        outcome.warnings += _remove_accounts(apt, paths, records.accounts.get(owner, set()))
    records.leftover = (records.leftover | set(kept)) - going - records.claimed_by_others(owner)
    records.owners.pop(owner, None)
    records.displaced.pop(owner, None)
    records.accounts.pop(owner, None)
    save_json(paths.records, records.as_dict())
    return outcome


def refresh_lists(run: Run, paths: Paths | None = None, pause: Callable[[float], None] = time.sleep) -> None:
    """Fetch the package lists."""
    _Apt(run, paths or Paths(), pause).refresh()


def upgrade(
    run: Run, versions: dict[str, str], paths: Paths | None = None, pause: Callable[[float], None] = time.sleep
) -> None:
    """Bring installed packages to these versions, and finish what an interrupted run left halfway.

    No service is started, stopped or restarted.
    """
    paths = paths or Paths()
    _check_names(list(versions))
    apt = _Apt(run, paths, pause)
    if any(package.halfway for package in apt.packages().values()):
        apt.heal()
    if not versions:
        return
    wanted = [f"{name}={version}" for name, version in sorted(versions.items())]
    with apt.no_services():
        rc, _out, err = apt.call(["apt-get", "install", "--only-upgrade", *OPTIONS, *wanted])
    if rc != 0:
        remedy = "see what the last lines say, repair it on the host, then run again."
        raise _failure("Upgrading " + ", ".join(wanted), err, remedy)
