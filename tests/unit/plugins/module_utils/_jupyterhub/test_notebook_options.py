# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import getpass
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._jupyterhub import notebook_options as options

TOP = Path(__file__).resolve().parents[5]
SINFO = """\
main*|up|infinite|3|2|3800|(null)|
long|up|7-00:00:00|2|16|64000|(null)
long|up|7-00:00:00|1|32|128000|gpu:a100:4(S:0-1)
closed|down|1:00:00|4|2|1000|(null)
empty|up|1:00:00|0|2|1000|(null)
""".replace("(null)|\n", "(null)\n")
PARTITIONS = options.parse_partitions(SINFO)
LIMITS = options.Limits()


def test_partitions_that_are_down_or_empty_are_not_offered_and_the_default_is_first():
    assert [(one.name, one.nodes, one.max_minutes) for one in PARTITIONS] == [("main", 3, 0), ("long", 3, 10080)]


@pytest.mark.parametrize(
    ("text", "minutes"),
    [("infinite", 0), ("n/a", 0), ("30:00", 30), ("1:00:00", 60), ("2-12:30:00", 3630), ("1-0", 1440), ("15", 15)],
)
def test_times_of_slurm_are_read(text, minutes):
    assert options.minutes_of(text) == minutes


@pytest.mark.parametrize(
    ("gres", "count"),
    [("(null)", 0), ("gpu:2", 2), ("gpu", 1), ("gpu:a100:4(S:0-1)", 4), ("gpu:a:1,gpu:b:2,nic:1", 3), ("nogpu:3", 0)],
)
def test_gpus_are_counted(gres, count):
    assert options.gpus_of(gres) == count


def test_a_wish_without_words_gets_what_the_site_offers_first():
    assert options.check({}, PARTITIONS, LIMITS) == options.Wish("main", 1, 1, 1024, 240, 0)


def test_what_is_offered_first_fits_small_nodes():
    small = options.parse_partitions("tiny*|up|30:00|1|1|500|(null)\n")
    assert options.check({}, small, LIMITS) == options.Wish("tiny", 1, 1, 500, 30, 0)


@pytest.mark.parametrize(
    ("wish", "complaint"),
    [
        ({"partition": "closed"}, "no partition 'closed'"),
        ({"partition": "main\n#SBATCH --uid=0"}, "no partition"),
        ({"nodes": 4}, "Nodes: 4 is more than the 3"),
        ({"nodes": 0}, "Nodes: 0 is too little"),
        ({"cores": "2; rm -rf /"}, "no whole number"),
        ({"cores": -1}, "no whole number"),
        ({"cores": True}, "no whole number"),
        ({"memory_mb": 4000}, "Memory in MB: 4000 is more than the 3800"),
        ({"gpus": 1}, "GPUs: 1 is more than the 0"),
        ({"partition": "long", "minutes": 20000}, "more than the 10080"),
        ({"partition": "long", "nodes": 2, "cores": 32}, "has no 2 nodes with 32 cores"),
        ({"image": "x"}, "image is no field"),
    ],
)
def test_a_wish_that_can_not_be_met_is_refused_in_words(wish, complaint):
    with pytest.raises(ValueError, match=re.escape(complaint)):
        options.check(wish, PARTITIONS, LIMITS)


def test_the_site_can_allow_less_than_slurm():
    limits = options.Limits(partitions=("long",), max_nodes=1, max_cores=4, max_minutes=60)
    with pytest.raises(ValueError, match=r"(?s)Nodes: 2 is more than the 1.*Cores: 8 is more than the 4"):
        options.check({"nodes": 2, "cores": 8}, PARTITIONS, limits)
    assert options.check({}, PARTITIONS, limits).partition == "long"
    assert options.check({}, PARTITIONS, limits).minutes == 60


def test_gpus_are_asked_of_nodes_that_have_them():
    wish = options.check({"partition": "long", "gpus": 4, "cores": 32}, PARTITIONS, LIMITS)
    script = options.job_script(wish, ["server"], "notebook", "~", "/opt/x", ["PATH"])
    assert "#SBATCH --gres=gpu:4\n" in script


def test_the_form_offers_what_there_is_and_escapes_it():
    text = options.form(options.parse_partitions("a<b*|up|infinite|3|2|2048|(null)\n"), LIMITS)
    assert '<option value="a&lt;b">a&lt;b: 3 x 2 cores, 2 GB</option>' in text
    assert 'name="nodes" value="1" min="1" max="3"' in text
    assert "gpus" not in text


def test_without_an_answer_of_slurm_the_form_says_so():
    assert "does not answer" in options.form([], LIMITS)
    with pytest.raises(ValueError, match="does not answer"):
        options.check({}, [], LIMITS)


def test_a_form_that_came_back_is_read_in_its_units():
    sent = {"partition": ["main"], "nodes": ["2"], "memory_gb": ["0.5"], "hours": ["1.5"], "cores": [""]}
    assert options.from_form(sent) == {"partition": "main", "nodes": "2", "memory_mb": 512, "minutes": 90}


@pytest.mark.parametrize("value", ["many", "1e400", "nan"])
def test_numbers_that_are_none_stay_and_are_refused(value):
    with pytest.raises(ValueError, match="no whole number"):
        options.check(options.from_form({"hours": [value]}), PARTITIONS, LIMITS)


def run_script(tmp_path, work_dir):
    """Run a job's script with an environment as it is installed, and a server that says where it is."""
    home, release = tmp_path / "home", tmp_path / "release"
    shared = release / "share/turnkey"
    if not home.exists():
        home.mkdir()
        (shared / "examples").mkdir(parents=True)
        shutil.copy(TOP / "roles/jupyterhub/files/start-notebook", shared)
        (shared / "examples/README.md").write_text("hello")
        (release / "bin").mkdir()
        (release / "bin/server").write_text("#!/bin/sh\npwd >where\n")
        (release / "bin/server").chmod(0o755)
        (tmp_path / "current").symlink_to("release")
    script = options.job_script(options.Wish("main"), ["server"], "n", work_dir, str(tmp_path / "current"), ["PATH"])
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
    subprocess.run(["bash", "-c", script], check=True, env=environment, cwd=tmp_path)
    return home


def test_the_job_works_in_its_users_directory_and_brings_the_examples_once(tmp_path):
    work = tmp_path / "shared dir" / getpass.getuser()
    work.parent.mkdir()
    run_script(tmp_path, str(work.parent / "{username}"))
    assert (work / "where").read_text().strip() == str(work)
    assert (work / "README.md").read_text() == "hello"
    assert oct(work.stat().st_mode & 0o777) == "0o700"
    (work / "README.md").unlink()
    run_script(tmp_path, str(work))
    assert not (work / "README.md").exists()


def test_a_tilde_is_the_home_directory_and_a_directory_that_can_not_be_had_falls_back_to_it(tmp_path):
    home = run_script(tmp_path, "~/notebooks")
    assert (home / "notebooks/where").exists()
    home = run_script(tmp_path, "/proc/nowhere")
    assert (home / "where").exists()


def test_the_script_hands_over_only_the_variables_that_are_named():
    script = options.job_script(
        options.Wish("main", 2, 1, 500, 30), ["x"], "notebook-default", "~", "/opt/x", ["A", "B"]
    )
    assert "#SBATCH --export=A,B\n" in script
    assert "#SBATCH --nodes=2\n" in script
    assert "#SBATCH --no-requeue\n" in script
