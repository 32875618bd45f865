# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._bundle.manifest import File
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._registry import Registry, account_line, plan, repository

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("docker.io/library/busybox:1.36", "library/busybox:1.36"),
        ("registry:5000/app:1", "app:1"),
        ("localhost/app:1", "app:1"),
        ("library/busybox:1.36", "library/busybox:1.36"),
        ("busybox:1.36", "busybox:1.36"),
        (f"quay.io/jupyterhub/k8s-hub@{OLD}", f"jupyterhub/k8s-hub@{OLD}"),
    ],
)
def test_an_image_keeps_its_name_without_the_host_of_its_registry(reference, name):
    assert repository(reference) == name


def test_only_images_of_another_digest_are_loaded():
    files = [File(f"images/{tag}.tar", 1, "", "image", tag, reference=f"x.io/a:{tag}", digest=NEW) for tag in "123"]
    loads = plan(files, {"a:1": NEW, "a:2": OLD, "a:3": ""})
    assert [(load.name, load.replaced) for load in loads] == [("a:2", OLD), ("a:3", "")]


@pytest.fixture
def access(tmp_path):
    (tmp_path / "ca.crt").write_text("ca")

    def call(run):
        return Registry.access(run, "10.0.0.1:5000", "turnkey", "hunter2", tmp_path / "ca.crt")

    return call


def test_the_password_is_in_no_argument_list_and_its_file_is_private(access):
    calls = []

    def run(argv, stdin=None):
        calls.append(argv)
        auth = Path(argv[argv.index("--authfile") + 1])
        assert auth.stat().st_mode & 0o777 == 0o600
        return 0, "{}", ""

    with access(run) as registry:
        registry.digest("a:1")
    assert "hunter2" not in str(calls)
    assert not Path(calls[0][3]).exists()


@pytest.mark.parametrize(
    ("err", "known"),
    [
        ("reading manifest 1 in 10.0.0.1:5000/a: manifest unknown: manifest unknown", True),
        ("reading manifest 1 in 10.0.0.1:5000/a: name unknown: repository name not known to registry", True),
        ("unauthorized: authentication required", False),
        ("x509: certificate signed by unknown authority", False),
    ],
)
def test_a_registry_that_refuses_is_not_taken_for_one_without_the_image(access, err, known):
    with access(lambda argv, stdin=None: (1, "", err)) as registry:
        if known:
            assert registry.digest("a:1") == ""
        else:
            with pytest.raises(HpcError, match="does not answer"):
                registry.digest("a:1")


@pytest.mark.skipif(not shutil.which("htpasswd"), reason="apache2-utils")
def test_a_hash_that_fits_the_password_stays_and_another_one_goes(tmp_path):
    def run(argv, stdin=None):
        done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    path = tmp_path / "htpasswd"
    first = account_line(run, "", "turnkey", "one", path)
    assert first.startswith("turnkey:$2y$10$")
    path.write_text(first)
    assert account_line(run, first, "turnkey", "one", path) == first
    assert account_line(run, first, "turnkey", "two", path) != first
