# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import sys

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.aws_calls import classify, connect_ec2
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.base import (
    AddressInUse,
    Auth,
    Capacity,
    Conflict,
    Exists,
    Invalid,
    NotFound,
    Quota,
    Throttled,
    Unknown,
)


@pytest.mark.parametrize(
    ("code", "status", "what", "kind"),
    [
        ("RequestLimitExceeded", 503, "x", Throttled),
        ("UnauthorizedOperation", 403, "x", Auth),
        ("InvalidPermission.Duplicate", 400, "x", Exists),
        ("RouteAlreadyExists", 400, "x", Exists),
        ("InvalidIPAddress.InUse", 400, "launch machine a", AddressInUse),
        ("InvalidIPAddress.InUse", 400, "release address", Conflict),
        ("DependencyViolation", 400, "x", Conflict),
        ("InvalidInstanceID.NotFound", 400, "x", NotFound),
        ("InsufficientInstanceCapacity", 500, "x", Capacity),
        ("VcpuLimitExceeded", 400, "x", Quota),
        ("InternalError", 500, "x", Unknown),
        ("SomethingNew", 502, "x", Unknown),
        ("InvalidParameterValue", 400, "x", Invalid),
    ],
)
def test_errors_of_ec2_fall_into_classes_and_keep_their_code(code, status, what, kind):
    error = classify(code, "words.", status, what)
    assert error.__class__ is kind
    assert str(error).startswith(f"could not {what}: words ({code}).")


def test_a_missing_sdk_is_one_clear_message(monkeypatch):
    monkeypatch.setitem(sys.modules, "boto3", None)
    with pytest.raises(HpcError, match=r"'boto3' is missing .* -m pip install boto3"):
        connect_ec2("eu-central-1")
