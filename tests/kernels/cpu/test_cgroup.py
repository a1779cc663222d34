"""The CPU quota of control groups, on made-up file systems laid out as Linux does."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastadam.kernels.cpu.cgroup import cpu_quota

V2_MOUNT = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_MOUNTS = (
    "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755",
    "32 31 0:29 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory",
    "33 31 0:30 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct",
)
DISK = "23 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw"


def system(root: Path, cgroup: str, mounts: tuple[str, ...], files: dict[str, str]) -> Path:
    """Lay out a root file system with the process's groups, mounts and the groups' files."""
    contents = {
        "proc/self/cgroup": cgroup + "\n",
        "proc/self/mountinfo": "\n".join([DISK, *mounts]) + "\n",
        **files,
    }
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(
    ("text", "expected"),
    [("max 100000\n", None), ("150000 100000\n", 1.5), ("20000 40000\n", 0.5), ("nonsense", None)],
)
def test_version_2(tmp_path, text, expected):
    system(tmp_path, "0::/a/b", (V2_MOUNT,), {"sys/fs/cgroup/a/b/cpu.max": text})
    assert cpu_quota(tmp_path) == expected


@pytest.mark.parametrize(("own", "parent"), [("400000", "300000"), ("300000", "400000")])
def test_the_smallest_on_the_way_up_counts(tmp_path, own, parent):
    files = {
        "sys/fs/cgroup/a/b/c/cpu.max": f"{own} 100000",
        "sys/fs/cgroup/a/b/cpu.max": "max 100000",
        "sys/fs/cgroup/a/cpu.max": f"{parent} 100000",
        "sys/fs/cgroup/sibling/cpu.max": "100000 100000",
    }
    system(tmp_path, "0::/a/b/c", (V2_MOUNT,), files)
    assert cpu_quota(tmp_path) == 3.0


def test_inside_a_container_the_root_of_the_mount_is_its_own_group(tmp_path):
    files = {"sys/fs/cgroup/cpu.max": "250000 100000"}
    assert cpu_quota(system(tmp_path, "0::/", (V2_MOUNT,), files)) == 2.5


def test_a_bind_mount_shows_only_what_lies_below_its_root(tmp_path):
    mount = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw"
    files = {
        "sys/fs/cgroup/cpu.max": "300000 100000",
        "sys/fs/cgroup/inner/cpu.max": "200000 100000",
    }
    system(tmp_path, "0::/docker/abc/inner", (mount,), files)
    assert cpu_quota(tmp_path) == 2.0


def test_a_group_outside_of_the_mount_leaves_the_mount_itself(tmp_path):
    mount = "30 23 0:26 /docker/abc /sys/fs/cgroup ro - cgroup2 cgroup rw"
    files = {"sys/fs/cgroup/cpu.max": "300000 100000"}
    system(tmp_path, "0::/elsewhere", (mount,), files)
    assert cpu_quota(tmp_path) == 3.0


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("70000", 1.4)])
def test_version_1(tmp_path, quota, expected):
    folder = "sys/fs/cgroup/cpu,cpuacct/job"
    files = {f"{folder}/cpu.cfs_quota_us": quota, f"{folder}/cpu.cfs_period_us": "50000"}
    system(tmp_path, "5:memory:/mem\n4:cpu,cpuacct:/job", V1_MOUNTS, files)
    assert cpu_quota(tmp_path) == expected


def test_version_1_beside_an_empty_version_2(tmp_path):
    folder = "sys/fs/cgroup/cpu,cpuacct"
    files = {f"{folder}/cpu.cfs_quota_us": "300000", f"{folder}/cpu.cfs_period_us": "100000"}
    v2 = "40 31 0:37 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw"
    system(tmp_path, "4:cpu,cpuacct:/\n0::/user.slice", (*V1_MOUNTS, v2), files)
    assert cpu_quota(tmp_path) == 3.0


def test_another_controller_with_cpu_in_its_name_is_none(tmp_path):
    folder = "sys/fs/cgroup/cpuset"
    files = {f"{folder}/cpu.cfs_quota_us": "300000", f"{folder}/cpu.cfs_period_us": "100000"}
    mount = "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"
    system(tmp_path, "4:cpuset:/", (mount,), files)
    assert cpu_quota(tmp_path) is None


def test_cpusets_are_left_to_the_affinity(tmp_path):
    # the kernel narrows every thread's affinity to its cpuset, which OpenMP looks at
    files = {"sys/fs/cgroup/a/cpuset.cpus": "0", "sys/fs/cgroup/a/cpu.max": "max 100000"}
    assert cpu_quota(system(tmp_path, "0::/a", (V2_MOUNT,), files)) is None


def test_a_group_seen_from_another_namespace_leaves_the_mount_itself(tmp_path):
    files = {"sys/fs/cgroup/cpu.max": "300000 100000"}
    assert cpu_quota(system(tmp_path, "0::/../../other", (V2_MOUNT,), files)) == 3.0


def test_bytes_of_any_kind_in_another_mount_do_no_harm(tmp_path):
    system(tmp_path, "0::/", (V2_MOUNT,), {"sys/fs/cgroup/cpu.max": "300000 100000"})
    mounts = tmp_path / "proc/self/mountinfo"
    stick = b"50 23 8:17 / /media/stick\xe9\x85 rw - vfat /dev/sdb1 rw\n"
    mounts.write_bytes(stick + mounts.read_bytes())
    assert cpu_quota(tmp_path) == 3.0


@pytest.mark.parametrize("line", ["nonsense", "", "30 23 0:26", "a - cgroup2", "a - cgroup2 x rw"])
def test_lines_of_another_form_are_passed_over(tmp_path, line):
    files = {"sys/fs/cgroup/cpu.max": "300000 100000"}
    system(tmp_path, f"{line}\n0::/", (line, V2_MOUNT), files)
    assert cpu_quota(tmp_path) == 3.0


def test_a_system_without_control_groups(tmp_path):
    assert cpu_quota(tmp_path) is None


def test_this_machine_has_none_or_a_positive_one():
    quota = cpu_quota()
    assert quota is None or quota > 0
