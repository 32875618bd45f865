# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
import yaml
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.manifest import (
    Manifest,
    Reader,
    change,
    missing_sources,
    parse,
    yaml_lines,
)

OLD = "from: app.c\nto: app\nhosts: 4\n"


@pytest.mark.parametrize(
    "text", [OLD, OLD.replace("\n", "\r\n"), "\n# ours\n" + OLD, OLD.replace(": ", ":"), "\ufeff" + OLD]
)
def test_the_old_format_is_read_as_it_was(text):
    assert parse("mpi.xml", text.encode()) == Manifest("mpi.xml", ("app.c",), "app", 4)


def test_the_same_keys_and_more_are_read_from_yaml():
    text = """---
# A solver
from: [main.c, lib/kernel.f90]   # two languages
to: "solver"
hosts: 4
ranks_per_host: 2
args:
- --steps
- '10'
env:
  OMP_NUM_THREADS: 2
  OMPI_MCA_btl_tcp_links: "2"
time_limit: 1:30:00
partition: long
cpus_per_rank: 8
"""
    assert parse("mpi.yml", text.encode()) == Manifest(
        "mpi.yml",
        ("main.c", "lib/kernel.f90"),
        "solver",
        4,
        2,
        ("--steps", "10"),
        {"OMP_NUM_THREADS": "2", "OMPI_MCA_btl_tcp_links": "2"},
        5400,
        "long",
        cpus_per_rank=8,
    )


@pytest.mark.parametrize(
    ("build", "commands"),
    [
        ("make -j2", ("make -j2",)),
        ("[./configure, make]", ("./configure", "make")),
        ("|\n  cmake -B out\n  cmake --build out\n", ("cmake -B out\ncmake --build out",)),
        ("\n  - cmake -B out\n  - cmake --build out\n", ("cmake -B out", "cmake --build out")),
    ],
)
def test_a_build_command_takes_the_place_of_sources(build, commands):
    assert parse("mpi.yml", f"to: out/app\nhosts: 1\nbuild: {build}\n".encode()).build == commands


@pytest.mark.parametrize(
    "text",
    [
        "a: 1\nb: two words\nc: 'it''s'\nd: \"tab\\t\"\n",
        "a: [1, 'x, y', \"z\"]\nb: []\n",
        "a:\n  - one\n  - \"two: 2\"\n  # a comment\n\n  - 'three'\nb: x # end\n",
        "a:\n- one\n- two\nb: x\n",
        "env:\n  A: 1\n  B: yes\n  'C': \"\"\n",
        "env: {A: 1, B: 'x y'}\n",
        "a: http://host/#x\nb: a#b\n",
        "a: -1\nb: --flag\n",
        "---\na: 1\n",
    ],
)
def test_what_is_read_means_the_same_to_a_real_yaml_reader(text):
    problems: list[str] = []

    def plain(value):
        if isinstance(value, list):
            return [item for _number, item in value]
        return {name: item for name, (_number, item) in value.items()} if isinstance(value, dict) else value

    found = {line.key: plain(line.value) for line in yaml_lines("mpi.yml", text.split("\n"), problems)}
    assert not problems
    assert found == yaml.load(text, Loader=yaml.BaseLoader)


@pytest.mark.parametrize(
    ("file", "text", "complaint"),
    [
        ("mpi.xml", OLD + "host: 4\n", "mpi.xml:4: unknown key 'host', did you mean 'hosts'?"),
        ("mpi.xml", OLD + "args: x\n", "mpi.xml:4: 'args' needs a manifest mpi.yml"),
        ("mpi.xml", OLD + "nonsense\n", "mpi.xml:4: 'nonsense' is no line 'key: value'"),
        ("mpi.xml", "<from>app.c</from>\n", "mpi.xml:1: '<from>app.c</from>' is no line"),
        ("mpi.xml", "from: app.c\n", "missing: to, hosts"),
        ("mpi.xml", OLD + "to: b\n", "mpi.xml:4: 'to' stands in line 2 already"),
        ("mpi.yml", OLD + "time_limt: 5m\n", "mpi.yml:4: unknown key 'time_limt', did you mean 'time_limit'?"),
        ("mpi.yml", OLD + "build: make\n", "mpi.yml:1: 'from' and 'build' exclude each other"),
        ("mpi.yml", OLD.replace("4", "four"), "mpi.yml:3: 'hosts' is 'four', which is no whole number from 1 to"),
        ("mpi.yml", OLD.replace("4", "0"), "mpi.yml:3: 'hosts' is '0'"),
        ("mpi.yml", OLD.replace("4", "[1, 2]"), "'hosts' has several values"),
        ("mpi.yml", OLD.replace("4", ""), "'hosts' has no value"),
        ("mpi.yml", OLD.replace("app.c", "app.java"), "no source of C, C++ or Fortran"),
        ("mpi.yml", OLD.replace("app.c", "../app.c"), "no plain path inside of the source tree"),
        ("mpi.yml", OLD.replace(" app\n", " /bin/app\n"), "mpi.yml:2: 'to' is '/bin/app'"),
        ("mpi.yml", OLD.replace(" app\n", " -o\n"), "mpi.yml:2: 'to' is '-o'"),
        ("mpi.yml", OLD.replace(" app\n", " a/.git/b\n"), "mpi.yml:2: 'to' is"),
        ("mpi.yml", OLD + "time_limit: 10\n", "which is no time such as 90s"),
        ("mpi.yml", OLD + "time_limit: 0s\n", "not between a second and a year"),
        ("mpi.yml", OLD + "partition: -x\n", "no name of a partition"),
        ("mpi.yml", OLD + 'args: "it\'s"\n', "can't be split into arguments"),
        ("mpi.yml", OLD + "env: x\n", "is no list of lines 'NAME: value'"),
        ("mpi.yml", OLD + "env:\n  LD_PRELOAD: x\n", "mpi.yml:4: 'env' has LD_PRELOAD, which would steer"),
        ("mpi.yml", OLD + "env: {SLURM_TASK_PROLOG: x}\n", "SLURM_TASK_PROLOG, which would steer"),
        ("mpi.yml", OLD + "env: {OMPI_MCA_plm_rsh_agent: x}\n", "OMPI_MCA_plm_rsh_agent, which would steer"),
        ("mpi.yml", OLD + "env:\n  A: 1\n  A: 2\n", "mpi.yml:6: 'A' stands in line 5 already"),
        ("mpi.yml", OLD + "args: &a x\n", "mpi.yml:4: '&a x' needs quotes"),
        ("mpi.yml", OLD + "args: !!str x\n", "needs quotes"),
        ("mpi.yml", OLD + "args: a: b\n", "has a colon"),
        ("mpi.yml", OLD + "args: [a, [b]]\n", "does not end with ']'"),
        ("mpi.yml", OLD + "args:\n\t- a\n", "indented with a tab"),
        ("mpi.yml", OLD + "args:\n  - a\n    - b\n", "indented in another way"),
        ("mpi.yml", OLD + "args:\n  - a\n  b: c\n", "mixes a list with keys"),
        ("mpi.yml", "  " + OLD, "is indented, but belongs to nothing"),
        ("mpi.yml", OLD + "---\n" + OLD, "'---' is no line 'key: value'"),
        ("mpi.yml", OLD + "args: \x1b[2J\n", "mpi.yml:4: the character '\\x1b'"),
        ("mpi.yml", OLD + "args: a\u2028b\n", "mpi.yml:4: the character"),
        ("mpi.yml", OLD + "x" * 70_000, "which is no manifest"),
    ],
)
def test_what_can_not_be_used_is_an_error_with_file_line_and_remedy(file, text, complaint):
    with pytest.raises(InvalidInput) as caught:
        parse(file, text.encode())
    assert complaint in str(caught.value)


def test_bytes_that_are_no_text_are_named_with_their_line():
    with pytest.raises(InvalidInput, match=r"mpi\.yml:2: not UTF-8"):
        parse("mpi.yml", b"from: a.c\nto: \xff\n")


def test_all_problems_are_told_at_once():
    with pytest.raises(InvalidInput, match=r"^3 problems:") as caught:
        parse("mpi.yml", b"from: app.c\nto: /x\nhosts: none\ncolour: red\n")
    assert [f"mpi.yml:{line}" in str(caught.value) for line in (2, 3, 4)] == [True] * 3


def test_a_single_run_may_have_other_values():
    manifest = parse("mpi.yml", OLD.encode())
    changed = change(manifest, ["hosts=8", "args=--steps '1 0'", "time_limit=2m"])
    assert (changed.hosts, changed.args, changed.time_limit) == (8, ("--steps", "1 0"), 120)
    with pytest.raises(InvalidInput) as caught:
        change(manifest, ["host=8", "hosts=many", "build=touch x"])
    assert [text in str(caught.value) for text in ("did you mean 'hosts'?", "'many'", "'build=touch x'")] == [True] * 3


def test_a_source_that_is_missing_is_named_with_the_nearest_file():
    manifest = parse("mpi.yml", b"from: [helo.c, b.c]\nto: app\nhosts: 1\n")
    problems = missing_sources(manifest, ["hello.c", "b.c", "mpi.yml"])
    assert problems == ["mpi.yml: 'from' names helo.c, which is no file of the tree; did you mean 'hello.c'?"]


def test_reading_goes_on_behind_a_line_that_can_not_be_read():
    problems: list[str] = []
    lines = yaml_lines("mpi.yml", ["a: &x", "  - 1", "b: 2", "%c", "d: 4"], problems)
    assert [line.key for line in lines] == ["b", "d"]
    assert len(problems) == 2
    assert not Reader([]).more()
