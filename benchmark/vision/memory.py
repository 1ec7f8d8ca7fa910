"""How this process's allocator treats what is freed."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # names of glibc's malloc.h
KEPT_BYTES = 2**31 - 1


def keep_freed_memory() -> bool:
    """Have glibc keep freed memory, up to 2 GiB, instead of handing it back; whether the C library took it.

    A training step frees and asks for the same megabytes again and again; on a CPU every round trip to the kernel
    costs a page fault per 4 KiB, a seventh of the CPU time of resnet56 -> resnet20. For the whole process, for good.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return False  # another C library: its business
    return bool(mallopt(MMAP_THRESHOLD, KEPT_BYTES) and mallopt(TRIM_THRESHOLD, KEPT_BYTES))
