"""How many CPUs a Linux control group grants this process: a container has few, and sees many."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

__all__ = ["cpu_quota"]


def cpu_quota(root: Path = Path("/")) -> float | None:
    """Return the CPU time per time that this process may use, in CPUs; None if nothing limits it.

    The smallest quota on the way from the process's own control group up to the root counts, in
    version 2 (``cpu.max``) and version 1 (``cpu.cfs_quota_us``) alike. Reading takes some tens of
    microseconds, so that callers keep the answer for a while.

    Parameters
    ----------
    root : pathlib.Path
        Where ``proc`` and the mounted file systems are found; for tests.

    Returns
    -------
    float or None
        For example 1.5; None too where there are no control groups at all.
    """
    try:
        memberships = _lines(root / "proc/self/cgroup")
        mounts = _lines(root / "proc/self/mountinfo")
    except OSError:
        return None
    quotas = []
    for line in memberships:
        fields = line.split(":", 2)
        if len(fields) < 3:
            continue
        _, controllers, path = fields
        if controllers and "cpu" not in controllers.split(","):
            continue
        for folder in _folders(PurePosixPath(path), controllers, mounts):
            inside = root / folder.relative_to("/")
            quota = _quota_v1(inside) if controllers else _quota_v2(inside)
            if quota is not None:
                quotas.append(quota)
    return min(quotas, default=None)


def _lines(path: Path) -> list[str]:
    """Read the lines of a file of the kernel; a path in it may be of any bytes."""
    return path.read_text("utf-8", "surrogateescape").split("\n")


def _folders(path: PurePosixPath, controllers: str, mounts: list[str]) -> list[PurePosixPath]:
    """List the folders of a control group and its parents, as far as they are mounted."""
    for line in mounts:
        fields, _, rest = line.partition(" - ")
        places = [PurePosixPath(field) for field in fields.split(" ")[3:5]]
        kind, _, options = rest.partition(" ")
        if kind != ("cgroup" if controllers else "cgroup2") or len(places) < 2:
            continue
        if controllers and "cpu" not in options.rpartition(" ")[2].split(","):
            continue
        # of a bind mount, as in a container, only what lies below its root is visible
        mounted, point = places
        below = path.relative_to(mounted) if path.is_relative_to(mounted) else PurePosixPath()
        return [point / below, *(point / parent for parent in below.parents)]
    return []


def _quota_v2(folder: Path) -> float | None:
    """Read ``cpu.max``: 'max 100000', or the quota and its period in microseconds."""
    try:
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        return None


def _quota_v1(folder: Path) -> float | None:
    """Read ``cpu.cfs_quota_us``, -1 for no limit, and its period."""
    try:
        quota = int((folder / "cpu.cfs_quota_us").read_text())
        period = int((folder / "cpu.cfs_period_us").read_text())
    except (OSError, ValueError):
        return None
    return quota / period if quota > 0 else None
