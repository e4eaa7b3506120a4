"""The allocator keeps what an update frees for the next one."""

from __future__ import annotations

import platform
import resource

import pytest
import torch

from rlfd.experiments.memory import keep_freed_memory

NUMBERS = 2_000_000  # 8 MB
TENSORS = 6


def faults_of(times: int) -> int:
    """Count the page faults of several tensors that are all freed before the next ones."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(times):
        tensors = [torch.ones(NUMBERS) for _ in range(TENSORS)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_tensors_take_the_place_of_those_before_without_page_faults() -> None:
    assert keep_freed_memory()
    faults_of(2)
    pages = TENSORS * NUMBERS * 4 // resource.getpagesize()
    assert faults_of(10) < pages  # ten times as many if each were asked of the kernel
