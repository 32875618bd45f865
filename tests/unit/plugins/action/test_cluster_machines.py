# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import threading

from ansible_collections.turnkey.hpc.plugins.action.cluster_machines import follow


def test_each_line_is_shown_once_as_it_comes_and_an_unfinished_one_when_it_is_whole(tmp_path):
    path, finished, shown = tmp_path / "progress", threading.Event(), []
    path.touch()
    seen = threading.Event()

    def show(line):
        shown.append(line)
        seen.set()

    follower = threading.Thread(target=follow, args=(path, finished, show))
    follower.start()
    with path.open("a") as file:
        file.write("1/2 create network main\n2/2 create ")
        file.flush()
        assert seen.wait(10)
        assert shown == ["  1/2 create network main"]
        file.write("machine head\n")
    finished.set()
    follower.join()
    assert shown == ["  1/2 create network main", "  2/2 create machine head"]
