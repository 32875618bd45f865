# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that hold for every file of the tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from house import TOP, files, grep, name_of, plain, report, text

THIS_DIRECTORY = Path(__file__).parent
# Prose may name what is banned, and so do these tests.
CODE = [path for path in files() if path.suffix != ".md" and path.name != "LICENSE" and path.parent != THIS_DIRECTORY]
BANNED = {
    "errors are not ignored": r"\bignore_errors\s*:",
    "versions do not depend on the day": r"state:\s*['\"]?latest\b",
    "ssh never skips the check of a host key": r"(?i)StrictHostKeyChecking['\"]?[\s=:,]+['\"]?(no|off|accept-new)\b",
    "ssh never forgets the host keys it knows": r"(?i)UserKnownHostsFile['\"]?[\s=:,]+['\"]?/dev/null",
    "ansible never skips the check of a host key": r"(?i)host_key_checking['\"]?\s*[=:]\s*['\"]?(false|no|0)\b",
    "nothing waits for a fixed time": r"ansible\.builtin\.pause|^\s*-?\s*pause:\s*$",
    "certificates are always checked": r"(?i)validate_certs['\"]?\s*[=:]\s*['\"]?(false|no)\b|verify\s*=\s*False",
    "curl checks certificates": r"\bcurl\b.*\s(-k|--insecure)\b",
    "nothing is failed_when false": r"failed_when:\s*(false|no)\b",
    "no test is skipped or expected to fail": r"pytest\.mark\.(skip\b|xfail)",
}
REQUIREMENTS = [
    f"{letter}{number}"
    for letter, last in zip("ABCDEF", (9, 5, 6, 8, 8, 6), strict=True)
    for number in range(1, last + 1)
]


@pytest.mark.parametrize("pattern", BANNED.values(), ids=[name.replace(" ", "-") for name in BANNED])
def test_banned_words_are_nowhere(pattern: str) -> None:
    report(grep(CODE, pattern))


def test_a_sleep_is_the_poll_interval_of_a_wait_with_a_deadline() -> None:
    problems = []
    for found in grep(CODE, r"\btime\.sleep\(|(^|[^\w.])sleep +[0-9]++(?! *&)"):
        name, number = found.split(":")[:2]
        if "# poll interval" not in "\n".join(text(TOP / name).splitlines()[max(0, int(number) - 2) : int(number)]):
            problems.append(f"{found}   (if it is one, say '# poll interval' on the line or above it)")
    report(problems)


def test_versions_of_python_packages_are_pinned_in_the_requirement_files_only() -> None:
    paths = [path for path in CODE if not re.fullmatch(r"requirements.*\.txt", path.name)]
    report(grep(paths, r"[a-z0-9_\]-]==[0-9]+\.[0-9]"))


def test_every_line_of_the_requirement_files_at_the_top_is_a_pin() -> None:
    problems = []
    for path in TOP.glob("requirements*.txt"):
        for number, line in enumerate(text(path).splitlines(), start=1):
            if not re.fullmatch(r"#.*|-r \S+|[\w.-]+(\[[\w,]+\])?==[\w.]+|", line):
                problems.append(f"{name_of(path)}:{number}: {line}")
    report(problems)


def test_no_file_mentions_a_path_of_the_machine_it_was_written_on() -> None:
    machine = [f"/{'work'}/", f"/{'root'}/.pyenv", f"/tmp/{'venv'}", f"{TOP}/"]
    paths = [path for path in files() if path.name != "LICENSE"]
    problems = []
    for path in paths:
        for number, line in enumerate(text(path).splitlines(), start=1):
            if any(re.search(rf"(?<![\w.}}])({re.escape(place)})", line) for place in machine):
                problems.append(f"{name_of(path)}:{number}: {line.strip()}")
    report(problems)


def test_no_two_clusters_have_one_network_or_port() -> None:
    # Tests run beside each other, and a run that was killed leaves its network.
    used: dict[str, set[str]] = {}
    places = ("molecule/shared/", "molecule/a_new_site_works/", "tests/vm/", "benchmarks/", "inventories/")
    for path in files(*places, suffixes=(".py", ".yml")):
        found = re.findall(r"\b(10\.(?:97|213)\.\d+\.0)/\d+|bastion_port\W{1,3}(\d+)", text(path))
        for value in {network or port for network, port in found}:
            used.setdefault(value, set()).add(name_of(path))
    report([f"{value}: {', '.join(sorted(names))}" for value, names in used.items() if len(names) > 1])


def test_no_file_is_empty() -> None:
    report([f"{name_of(path)}: empty" for path in files() if not path.stat().st_size and path.name != "__init__.py"])


def test_no_private_key_and_no_verify_report_is_in_the_tree() -> None:
    problems = grep(CODE, f"^[ \"']*-----BEGIN [A-Z ]*{'PRIVATE'} KEY-----")
    report(problems + [name_of(path) for path in files() if ".secrets" in path.parts or path.name == "verify.json"])


def test_the_feature_table_has_every_requirement() -> None:
    path = TOP / "docs/features.md"
    rows = set(re.findall(r"^\|\s*\W*([A-F][1-9])\b", text(path), re.MULTILINE)) if path.is_file() else set()
    report([f"docs/features.md: no row for {name}" for name in REQUIREMENTS if name not in rows])


def test_the_feature_table_names_only_tests_and_files_that_exist() -> None:
    path = TOP / "docs/features.md"
    problems = []
    for number, line in enumerate(text(path).splitlines() if path.is_file() else [], start=1):
        for name in re.findall(r"`((?:tests|molecule|playbooks|roles|plugins|tools|docs)/[\w./-]+)`", line):
            if not (TOP / name).exists():
                problems.append(f"docs/features.md:{number}: {name} does not exist")
    report(problems)


def _version(value: str) -> tuple[int, ...]:
    return tuple(int(part) for part in value.split("."))


def test_the_version_is_that_of_the_newest_release_or_above_it_while_fragments_wait() -> None:
    version = plain(TOP / "galaxy.yml")["version"]
    releases = sorted((plain(TOP / "changelogs/changelog.yaml") or {}).get("releases") or {}, key=_version)
    waiting = files("changelogs/fragments/")
    newest = releases[-1] if releases else "0.0.0"
    if waiting:
        assert _version(version) > _version(newest), (
            f"galaxy.yml says {version}, {newest} is released, and {name_of(waiting[0])} waits"
        )
    else:
        assert version == newest, (
            f"galaxy.yml says {version}, the newest release in changelogs/changelog.yaml is {newest}"
        )


def test_the_pinned_ansible_core_is_one_that_the_collection_says_it_works_with() -> None:
    pinned = re.search(r"^ansible-core==(\S+)$", text(TOP / "requirements.txt"), re.MULTILINE)
    assert pinned, "requirements.txt: no pin of ansible-core"
    for bound in plain(TOP / "meta/runtime.yml")["requires_ansible"].split(","):
        sign, limit = re.fullmatch(r"(>=|<)([\d.]+)", bound).groups()
        holds = _version(pinned[1]) >= _version(limit) if sign == ">=" else _version(pinned[1]) < _version(limit)
        assert holds, (
            f"meta/runtime.yml: requires_ansible {bound} excludes ansible-core {pinned[1]} of requirements.txt"
        )
