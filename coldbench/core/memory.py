"""How the C library hands out memory for tensors."""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # from glibc's malloc.h


def keep_freed_memory() -> None:
    """Let glibc keep freed blocks for the next tensors; nothing where the C library is another one.

    By default it gives every large block back to the kernel and asks for a new one, whose pages the kernel has to
    clear. `benchmarks/bench_network.py` measures what that costs. No value that is computed changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
