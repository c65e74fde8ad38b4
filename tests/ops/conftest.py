"""Fixtures of the operators' tests."""

from __future__ import annotations

import pytest
import torch

from task_aware import _extension


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    """Every device whose kernels a test should hold; one that is not there is skipped with the reason."""
    extension = _extension.extension
    if request.param == "cpu" and not extension.cpu:
        pytest.skip(f"no CPU kernels: {extension.cpu_absent}")
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA GPU here")
        if not extension.cuda:
            pytest.skip(f"no CUDA kernels: {extension.cuda_absent}")
    return request.param
