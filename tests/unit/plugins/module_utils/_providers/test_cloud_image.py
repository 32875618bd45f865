# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Which images are too many. How a cloud makes and removes them is in tests/cloud."""

from __future__ import annotations

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.cloud_image import CloudImage, to_prune


def image(number, state="ready", used=False, image_of="node"):
    return CloudImage(f"m-{number}", f"node-{number}", image_of, "", f"2026-01-{number:02d}", state, used)


IMAGES = [
    image(1),
    image(2, used=True),
    image(3, "failed"),
    image(4),
    image(5),
    image(6, "pending"),
    image(7, image_of="x"),
]


@pytest.mark.parametrize(
    ("keep", "doomed"),
    [(3, ["m-3", "m-1"]), (2, ["m-3", "m-1"]), (1, ["m-4", "m-3", "m-1"]), (0, ["m-4", "m-3", "m-1"]), (9, ["m-3"])],
)
def test_the_newest_stay_and_what_is_used_or_being_made(keep, doomed):
    assert [item.id for item in to_prune(IMAGES, "node", keep)] == doomed


def test_the_last_version_of_an_image_is_never_removed():
    assert to_prune([image(1)], "node", 0) == []
