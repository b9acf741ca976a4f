"""The disk that a database file is on."""

from pathlib import Path

import pytest

from repo.errors import UnavailableError
from repo.sqlite.disk import Disk, disk_of
from tests.repo.rows import Db
from tests.support.forbidden import forbid


def test_a_missing_file_has_the_disk_of_its_folder(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "none.db")
    assert disk.kind == disk_of(tmp_path).kind  # empty in a chroot, whose root is not a mount
    assert disk.free_bytes > 0
    assert 0 < disk.free_share <= 1


def test_a_folder_without_permission_is_unavailable_and_named(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(db.path.parent, monkeypatch)
    for look in (lambda: disk_of(db.path), db.database.check_writable):
        with pytest.raises(UnavailableError, match=f"Permission denied: '{db.path}'"):
            look()


def test_network_disks_and_disks_in_memory_are_recognised() -> None:
    assert disk_of(Path("/proc/self")).kind == "proc"
    assert Disk("nfs4", 1, 0.5).is_network
    assert not Disk("ext4", 1, 0.5).is_network
    assert Disk("tmpfs", 1, 0.5).is_volatile
