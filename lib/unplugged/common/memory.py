"""Memory that there is, asked before it is taken."""

from __future__ import annotations

import os
from pathlib import Path


def free(root: str = "/") -> int:
    """Bytes that the system can give, or a container's limit; if it does not say, all it has."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if (info := Path(root, "proc/meminfo")).exists():
        fields = dict(line.split(":") for line in info.read_text().splitlines())
        found = [int(fields["MemAvailable"].split()[0]) * 1024]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # cgroups' second version, first
        limit = Path(root, "sys/fs/cgroup", name)
        if limit.exists() and (text := limit.read_text().strip()) != "max":
            found.append(int(text))
    return min(found)
