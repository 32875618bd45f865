# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Tasks, handlers and playbooks read the same everywhere."""

from __future__ import annotations

import re
from collections import Counter

from house import MAGIC, TOP, Task, code_lines, files, grep, name_of, plain, report, tasks, text

PLAYBOOKS = [path for path in files("playbooks/", suffixes=(".yml",)) if path.parent == TOP / "playbooks"]
ANSIBLE_FILES = [
    path
    for path in files("roles/", "playbooks/", "molecule/", "inventories/")
    if path.suffix in (".yml", ".yaml", ".j2") and path.name != "molecule.yml"
]


def test_tasks_of_a_sub_file_begin_with_the_name_of_the_file() -> None:
    problems = []
    for task in tasks():
        if task.path.name != "main.yml" and task.name and not task.name.startswith(f"{task.path.stem} | "):
            problems.append(f"{task.where}: '{task.name}' does not begin with '{task.path.stem} | '")
    report(problems)


def test_every_task_and_handler_has_a_name() -> None:
    report([f"{task.where}: no name" for task in (*tasks(), *tasks("handlers")) if not task.name])


def _names_its_role(handler: Task) -> bool:
    # ansible-lint wants a capital first: `Baseline | Restart chrony` (or `listen: baseline | Restart chrony`).
    prefix = f"{handler.role} | "
    return any(name.startswith((prefix, prefix.capitalize())) for name in (handler.name, *_listens(handler.body)))


def test_handlers_are_unique_and_begin_with_the_name_of_their_role() -> None:
    problems = [
        f"{handler.where}: '{handler.name}' does not begin with '{handler.role.capitalize()} | '"
        for handler in tasks("handlers")
        if not _names_its_role(handler)
    ]
    counted = Counter(handler.name for handler in tasks("handlers"))
    problems += [
        f"{handler.where}: '{handler.name}' exists twice" for handler in tasks("handlers") if counted[handler.name] > 1
    ]
    report(problems)


def _notified(body: dict) -> list[str]:
    notify = body.get("notify") or []
    return [notify] if isinstance(notify, str) else list(notify)


def test_every_notified_handler_exists_and_every_handler_is_notified() -> None:
    known = {name for handler in tasks("handlers") for name in (handler.name, *_listens(handler.body))}
    everything = (*tasks(), *tasks("handlers"))
    problems = [
        f"{task.where}: no handler '{name}'"
        for task in everything
        for name in _notified(task.body)
        if name not in known
    ]
    wanted = {name for task in everything for name in _notified(task.body)}
    problems += [
        f"{handler.where}: nothing notifies '{handler.name}'"
        for handler in tasks("handlers")
        if not wanted & {handler.name, *_listens(handler.body)}
    ]
    report(problems)


def _listens(body: dict) -> list[str]:
    listen = body.get("listen") or []
    return [listen] if isinstance(listen, str) else list(listen)


def test_facts_are_read_only_through_ansible_facts() -> None:
    problems = []
    for path in ANSIBLE_FILES:
        for number, line in code_lines(path):
            for name in re.findall(r"(?<![\w.'\"/-])ansible_[a-z0-9_]+(?![\w]*\()", line):
                if not MAGIC.fullmatch(name):
                    short = name.removeprefix("ansible_")
                    problems.append(f"{name_of(path)}:{number}: {name} (a fact is read as ansible_facts['{short}'])")
    problems += grep(ANSIBLE_FILES, r"ansible_facts\.[a-z]")
    report(problems)


def test_tasks_do_not_branch_on_the_distribution() -> None:
    paths = [path for path in files("roles/", suffixes=(".yml",)) if path.parent.name in ("tasks", "handlers")]
    report(grep(paths, r"\bwhen:.*(distribution|os_family)"))


def test_roles_leave_privilege_to_the_play() -> None:
    report([f"{task.where}: become" for task in (*tasks(), *tasks("handlers")) if task.body.get("become") is True])


def test_output_is_hidden_only_through_cluster_secure_logging() -> None:
    problems = []
    for task in (*tasks(), *tasks("handlers")):
        if "no_log" in task.body and "cluster_secure_logging" not in str(task.body["no_log"]):
            problems.append(f"{task.where}: no_log is {task.body['no_log']!r}, not '{{{{ cluster_secure_logging }}}}'")
    report(problems)


def test_playbooks_have_at_most_40_lines() -> None:
    report([f"{name_of(path)}: {n} lines" for path in PLAYBOOKS if (n := len(text(path).splitlines())) > 40])


def test_playbooks_say_at_the_top_what_they_do() -> None:
    report([f"{name_of(path)}:1: no comment" for path in PLAYBOOKS if not re.match(r"(---\n)?# \w", text(path))])


def test_plays_have_names() -> None:
    problems = []
    for path in PLAYBOOKS:
        problems += [f"{name_of(path)}: a play without a name" for play in plain(path) or [] if not play.get("name")]
    report(problems)
