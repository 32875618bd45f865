# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The archive that a virtual machine's kernel starts from, read by the program cpio."""

from __future__ import annotations

import subprocess

from ansible_collections.turnkey.hpc.plugins.module_utils._disk_image import cpio


def test_cpio_reads_the_archive(tmp_path):
    archive = cpio([("bin", 0o040755, b""), ("bin/busybox", 0o100755, b"a shell"), ("init", 0o100755, b"#!/bin/sh\n")])
    argv = ["cpio", "--extract", "--quiet", "--make-directories", "--no-preserve-owner", "bin", "bin/*", "init"]
    subprocess.run(argv, input=archive, cwd=tmp_path, check=True)
    assert (tmp_path / "bin/busybox").read_text() == "a shell"
    assert (tmp_path / "init").read_text() == "#!/bin/sh\n"
    assert (tmp_path / "init").stat().st_mode & 0o777 == 0o755
