# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import InvalidInput
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi import plan
from ansible_collections.turnkey.hpc.plugins.module_utils._mpi.manifest import Manifest

SETTINGS = plan.Settings("slurm", "/shared/mpi-%u", "/etc/openmpi/cluster-hosts", "/lib/queue", "/lib")
# sinfo --noheader --format=%P|%D|%t of Slurm 22.05
SINFO = """main*|2|idle
main*|1|mix
main*|3|idle~
main*|1|down*
main*|1|drng
main*|1|idle*
big|4|alloc
big|1|maint
"""


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("apps/hello", "hello"),
        ("~/apps/hello", "hello"),
        ("~alice/apps/hello", "hello"),
        ("/home/alice/apps/hello/", "hello"),
        ("./apps/../apps/hello", "hello"),
        ("apps", None),
        ("apps/a/b", None),
        ("other/hello", None),
        ("~bob/apps/hello", None),
        ("/home/bob/apps/hello", None),
        ("apps/../../bob/apps/hello", None),
        ("", None),
    ],
)
def test_an_application_is_what_lies_directly_in_apps_of_the_users_own_home(path, name):
    assert plan.app_of(path, "/home/alice", "alice") == name


@pytest.mark.parametrize("name", ["-x", "a b", "a;b", "a/b", "..", ".", "", "x.git", "x" * 65, "ä"])
def test_a_name_that_could_mean_something_else_is_refused(name):
    with pytest.raises(InvalidInput):
        plan.check_name(name)


@pytest.mark.parametrize(
    ("sources", "steps"),
    [
        (("a.c", "b.c"), ["mpicc -O2 -o app a.c b.c -lm"]),
        (("a.cpp",), ["mpicxx -O2 -o app a.cpp -lm"]),
        (("a.C",), ["mpicxx -O2 -o app a.C -lm"]),
        (("a.F90",), ["mpifort -O2 -o app a.F90 -lm"]),
        (
            ("a.c", "b.f90"),
            [
                "mpicc -O2 -c -o .turnkey-1.o a.c",
                "mpifort -O2 -c -o .turnkey-2.o b.f90",
                "mpifort -o app .turnkey-1.o .turnkey-2.o -lm",
            ],
        ),
        (
            ("a.cc", "b.f"),
            [
                "mpicxx -O2 -c -o .turnkey-1.o a.cc",
                "mpifort -O2 -c -o .turnkey-2.o b.f",
                "mpifort -o app .turnkey-1.o .turnkey-2.o -lstdc++ -lm",
            ],
        ),
    ],
)
def test_each_language_has_its_compiler_and_a_mixture_one_that_links_all(sources, steps):
    assert [step.text for step in plan.build_steps(Manifest("mpi.yml", sources, "app"))] == steps


def test_a_build_of_ones_own_runs_in_a_shell_that_stops_at_the_first_error():
    (step,) = plan.build_steps(Manifest("mpi.yml", target="app", build=("make; ls",)))
    assert step.argv == ("/bin/sh", "-ec", "make; ls")


@pytest.mark.parametrize(("partition", "count"), [("", (6, "main")), ("main", (6, "main")), ("big", (4, "big"))])
def test_nodes_that_are_down_do_not_count_and_nodes_that_power_up_do(partition, count):
    assert plan.usable_nodes(SINFO, partition) == count


def test_an_unknown_partition_is_an_error_that_names_the_known_ones():
    with pytest.raises(InvalidInput, match=r"'bigg'.*main, big"):
        plan.usable_nodes(SINFO, "bigg")


@pytest.mark.parametrize(
    ("path", "target", "out"),
    [
        ("a", "b", False),
        ("a/b", "../c", False),
        ("a/b/c", "../../d", False),
        ("a", "./b/c", False),
        ("a", "/etc/passwd", True),
        ("a", "..", True),
        ("a/b", "../../c", True),
        ("a", "b/../../c", True),
        ("a/b/c", "d/../e", True),
        ("a/b/c", ".d/../../../../e", True),
        ("a", ".git/config", True),
        ("a/b", "../.git/hooks", True),
        ("a", "", True),
    ],
)
def test_a_link_that_leads_out_of_the_tree_is_found(path, target, out):
    assert plan.escapes(path, target) is out


@pytest.mark.parametrize(
    ("entries", "complaint"),
    [
        ([plan.Entry("100644", 2_000_000, "big.bin")], "the largest file is big.bin"),
        ([plan.Entry("100644", 0, "f")] * (plan.MOST_FILES + 1), "50001 files"),
        ([plan.Entry("160000", 0, "module")], "Submodules are not fetched: module"),
    ],
)
def test_a_tree_that_is_too_big_or_not_whole_is_refused(entries, complaint):
    with pytest.raises(InvalidInput) as caught:
        plan.check_entries(entries, 1)
    assert complaint in str(caught.value)
    plan.check_entries([plan.Entry("100644", 1000, "a")], 1)


def test_the_options_of_slurm_are_complete_and_nothing_of_the_manifest_stands_alone():
    manifest = Manifest("mpi.yml", target="app", hosts=4, ranks_per_host=2, partition="big", time_limit=90)
    assert plan.sbatch_argv("hello", manifest, "/s", "/l") == [
        "sbatch",
        "--parsable",
        "--job-name=hello",
        "--nodes=4",
        "--ntasks-per-node=2",
        "--no-requeue",
        "--chdir=/s",
        "--output=/l",
        "--partition=big",
        "--time=2",
    ]


@pytest.mark.parametrize(
    ("scheduler", "start"),
    [
        ("slurm", ["srun", "--mpi=pmix", "--kill-on-bad-exit=1", "--distribution=block"]),
        ("none", ["mpirun", "--hostfile", "/r/1/hosts", "-n", "4", "--map-by", "ppr:2:node", "-x", "A"]),
    ],
)
def test_the_program_is_an_absolute_path_and_what_follows_it_belongs_to_it(scheduler, start):
    settings = plan.Settings(scheduler, "", "/h", "/q", "/lib", output_mb=1)
    manifest = Manifest("mpi.yml", target="bin/app", hosts=2, ranks_per_host=2, args=("--export=x",), env={"A": "1"})
    found = plan.start_plan(manifest, settings, "/r/1")
    assert found["argv"] == [*start, "/r/1/source/bin/app", "--export=x"]
    assert found["env"] == {"A": "1"}
    assert found["output_bytes"] == 1_000_000


def test_ranks_with_several_cpus_get_them():
    manifest = Manifest("mpi.yml", target="app", cpus_per_rank=4)
    assert "--cpus-per-task=4" in plan.sbatch_argv("hello", manifest, "/s", "/l")
    assert "--cpus-per-task=4" in plan.start_plan(manifest, SETTINGS, "/r/1")["argv"]
    settings = plan.Settings("none", "", "/h", "/q", "/lib")
    argv = plan.start_plan(manifest, settings, "/r/1")["argv"]
    assert argv[argv.index("--bind-to") + 1] == "none"


def test_the_environment_of_a_login_is_left_behind():
    before = {"PATH": "/evil", "LD_PRELOAD": "x", "BASH_ENV": "x", "SLURM_CONF_SERVER": "head:6817", "GIT_DIR": "x"}
    found = plan.clean_environment(before, "alice", "/home/alice")
    assert found["PATH"] == "/usr/local/bin:/usr/bin:/bin"
    assert found["SLURM_CONF_SERVER"] == "head:6817"
    assert not {"LD_PRELOAD", "BASH_ENV", "GIT_DIR"} & set(found)


def test_ranks_fill_one_host_after_the_other():
    assert plan.rank_map(["a", "b"], 2) == {"a": [0, 1], "b": [2, 3]}


def test_the_oldest_runs_that_have_ended_are_removed():
    states = ["completed", "rejected", "running", "failed", "queued", "built", "lost"]
    runs = [{"number": number, "state": state} for number, state in enumerate(states, start=1)]
    assert plan.expired(runs, 2) == [1, 2, 4]
    assert plan.expired(runs, 9) == []


def test_the_place_of_runs_is_the_users():
    settings = plan.Settings("slurm", "%h/x%%/%u", "", "", "")
    assert settings.place("alice", "/home/alice") == "/home/alice/x%/alice"


@pytest.mark.parametrize(
    ("run", "text"),
    [
        (
            {"state": "completed", "exit_code": 0, "seconds": 1.24, "hosts": ["a", "b"], "ranks": {"a": [0], "b": [1]}},
            "x run 3: completed, 1.2 s, exit code 0, 2 ranks on 2 hosts (a, b)",
        ),
        (
            {"state": "failed", "exit_code": 139, "seconds": 2.0},
            "x run 3: failed, 2.0 s, exit code 139 (segmentation fault)",
        ),
        (
            {"state": "timeout", "exit_code": 124, "seconds": 3.0},
            "x run 3: stopped at its time limit, 3.0 s, exit code 124",
        ),
        ({"state": "lost"}, "x run 3: lost, because a node or what ran it is gone"),
        ({"state": "queued"}, "x run 3: queued"),
    ],
)
def test_a_run_is_summed_up_in_a_line(run, text):
    assert plan.summary({"app": "x", "number": 3, **run}) == text


def test_check_mode_says_what_would_be_built_and_run():
    found = plan.prospect(Manifest("mpi.yml", ("a.c",), "app", 4, 2, ("x",)))
    assert found == {"build": ["mpicc -O2 -o app a.c -lm"], "program": "./app x", "hosts": 4, "ranks": 8}


def test_how_it_is_started_is_said_in_short():
    manifest = Manifest("mpi.yml", target="app", hosts=2)
    assert plan.command(manifest, "slurm") == "srun --nodes=2 --ntasks-per-node=1 ./app"
    assert plan.command(manifest, "none") == "mpirun -n 2 --map-by ppr:1:node ./app"


def test_columns_of_a_table_are_even():
    assert plan.table([("a", "bb"), ("ccc", "d")]) == "a    bb\nccc  d"
    assert plan.table([]) == ""
