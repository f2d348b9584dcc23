"""Memory that there is, asked before it is taken."""

from __future__ import annotations

import os
from pathlib import Path


def free(root: str = "/") -> int:
    """Bytes that the system can give, or the limit of a container or job; else all there are."""
    found = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    if (info := Path(root, "proc/meminfo")).exists():
        fields = dict(line.split(":") for line in info.read_text().splitlines())
        found = [int(fields["MemAvailable"].split()[0]) * 1024]
    return min(found + _limits(Path(root)))


def _limits(root: Path) -> list[int]:
    """Limits of this process's control group and of those above it, in either of two versions."""
    own = {"": "", "memory": ""}  # by controller: it has no name in the second version
    if (groups := root / "proc/self/cgroup").exists():
        for line in groups.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            own.update((kind, path.strip("/")) for kind in kinds.split(",") if kind in own)
    found = []
    for kind, name in (("", "memory.max"), ("memory", "memory.limit_in_bytes")):
        top = root / "sys/fs/cgroup" / kind
        for group in (top / own[kind], *(top / own[kind]).parents):
            if group.is_relative_to(top) and (group / name).exists():
                text = (group / name).read_text().strip()
                found += [] if text == "max" else [int(text)]
    return found
