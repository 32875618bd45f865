# Copyright (c) The turnkey.hpc founders
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The SDK of Alibaba Cloud: which error is which, and lists that come in pages. No SDK is needed here."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
from ansible_collections.turnkey.hpc.plugins.module_utils._errors import HpcError
from ansible_collections.turnkey.hpc.plugins.module_utils._providers.alicloud_api import (
    Api,
    _translated,
    classified,
    connect_api,
)
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
    ("code", "status", "kind"),
    [
        ("Throttling", 400, Throttled),
        ("Throttling.User", 400, Throttled),
        ("OperationFailed.Throttling", 400, Throttled),
        ("ServiceUnavailable", 503, Unknown),
        ("InternalError", 500, Unknown),
        ("SomethingNew", 502, Unknown),
        ("SomethingNew", 400, Invalid),
        ("SystemBusy", 400, Unknown),
        ("OperationDenied.NoStock", 403, Capacity),
        ("Zone.NotOnSale", 403, Capacity),
        ("InvalidResourceType.NotSupported", 400, Capacity),
        ("InvalidVSwitchId.IpNotEnough", 400, Capacity),
        ("QuotaExceeded.Vpc", 400, Quota),
        ("QuotaExceed.ElasticQuota", 403, Quota),
        ("InvalidAccountStatus.NotEnoughBalance", 403, Quota),
        ("InvalidAccessKeyId.NotFound", 404, Auth),
        ("SignatureDoesNotMatch", 400, Auth),
        ("Forbidden.RAM", 403, Auth),
        ("InvalidSecurityToken.Expired", 400, Auth),
        ("InvalidUser.Unauthorized", 401, Auth),
        ("InvalidPrivateIpAddress.Duplicated", 400, AddressInUse),
        ("InvalidIPAddress.AlreadyUsed", 400, AddressInUse),
        ("InvalidPrivateIpAddress.Malformed", 400, Invalid),
        ("InvalidInstanceId.NotFound", 404, NotFound),
        ("InvalidVpcID.NotFound", 404, NotFound),
        ("InvalidImageId.NotFound", 404, Invalid),
        ("InvalidRegionId.NotFound", 404, Invalid),
        ("DependencyViolation", 400, Conflict),
        ("DependencyViolation.EIPS", 400, Conflict),
        ("IncorrectVpcStatus", 400, Conflict),
        ("IncorrectStatus.NatGateway", 400, Conflict),
        ("IncorrectInstanceStatus.Initializing", 403, Conflict),
        ("OperationConflict", 400, Conflict),
        ("TaskConflict", 400, Conflict),
        ("OperationFailed.LastTokenProcessing", 400, Conflict),
        ("IdempotentProcessing", 400, Conflict),
        ("DeploymentSetNotEmpty", 400, Conflict),
        ("KeyPair.AlreadyExist", 400, Exists),
        ("IdempotentParameterMismatch", 400, Invalid),
    ],
)
def test_an_error_code_says_what_can_be_done_about_it(code, status, kind):
    error = classified(code, "code: 400, It is so. request id: 1", status, "DoIt")
    assert error.__class__ is kind
    assert str(error).startswith(f"Alibaba Cloud refuses DoIt: {code}: It is so. request id: 1.")


@pytest.mark.parametrize("kind", [Auth, Capacity, Quota])
def test_what_the_user_must_change_has_a_remedy(kind):
    code = {Auth: "Forbidden.RAM", Capacity: "OperationDenied.NoStock", Quota: "QuotaExceeded.Eip"}[kind]
    assert "Remedy: " in str(classified(code, "", 403, "DoIt"))


class FakeModels:
    """The shape of the SDK's models: classes that take their parameters by name."""

    class _Base:
        def __init__(self, **values):
            known = {"region_id", "max_results", "next_token", "page_number", "page_size", "tag", "key", "value"}
            if set(values) - known:
                raise TypeError(f"unexpected {set(values) - known}")
            self.__dict__.update(values)

        def to_map(self):
            return self.__dict__

    DescribeInstancesRequest = DescribeInstancesRequestTag = DescribeVpcsRequest = _Base


def paged_api(rows, chunked):
    seen = []

    def ask(request):
        seen.append(request)
        size = request.max_results if chunked else request.page_size
        start = int(request.next_token or 0) if chunked else (request.page_number - 1) * size
        part = FakeModels._Base()
        part.__dict__["row"] = rows[start : start + size]
        following = str(start + size) if start + size < len(rows) else ""
        return SimpleNamespace(
            body=SimpleNamespace(request_id="1", rows=part, next_token=following, total_count=len(rows))
        )

    client = SimpleNamespace(describe_instances=ask, describe_vpcs=ask)
    return Api("cn-hangzhou", lambda _product: client, lambda _product: FakeModels), seen


@pytest.mark.parametrize("count", [0, 1, 50, 51, 249, 250])
@pytest.mark.parametrize("action", ["DescribeInstances", "DescribeVpcs"])
def test_a_list_is_read_to_its_end_in_as_few_calls_as_possible(count, action):
    api, seen = paged_api(list(range(count)), action == "DescribeInstances")
    product = "ecs" if action == "DescribeInstances" else "vpc"
    assert api.pages(product, action, 50, tag=[{"key": "a", "value": "b"}] if product == "ecs" else None) == list(
        range(count)
    )
    assert len(seen) == max(1, -(-count // 50))
    assert {request.region_id for request in seen} == {"cn-hangzhou"}


def test_a_parameter_that_the_sdk_does_not_have_is_a_bug_that_shows():
    api, _seen = paged_api([], True)
    with pytest.raises(TypeError, match="max_result'"):
        api.ecs("DescribeInstances", max_result=3)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("RetryError(CredentialException('no provider in the chain has any'))", Auth),
        ("RetryError({'message': 'Remote end closed connection without response'})", Unknown),
        ("RetryError(NameResolutionError('ecs.mars-1.aliyuncs.com'))", HpcError),
    ],
)
def test_no_credentials_and_no_such_host_are_told_at_once_and_only_silence_is_asked_again(text, kind):
    assert _translated(OSError(text), "DoIt").__class__ is kind


def test_a_missing_sdk_is_one_message_with_the_command_that_installs_it(monkeypatch):
    for name in ("alibabacloud_credentials", "alibabacloud_credentials.client"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(HpcError, match=r"provider alicloud needs the SDK.*pip install -r requirements-alicloud\.txt"):
        connect_api("cn-hangzhou")
