"""Where a database file lies."""

from pathlib import Path

import pytest

from repo.errors import UnavailableError
from repo.sqlite.database import Database
from repo.sqlite.disk import Place, damage, look_at
from tests.support.forbidden import forbid


def test_a_file_that_is_not_there_yet_has_the_place_of_its_folder(tmp_path: Path) -> None:
    place = look_at(tmp_path / "none.db")
    assert place.kind == look_at(tmp_path).kind  # empty in a chroot, whose root is no mount
    assert place.free_bytes > 0
    assert 0 < place.free_share <= 1


def test_a_folder_that_may_not_be_looked_into_is_told(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(database.path.parent, monkeypatch)
    for look in (lambda: look_at(database.path), database.check_writable):
        with pytest.raises(UnavailableError, match=f"Permission denied: '{database.path}'"):
            look()


def test_disks_of_other_machines_and_of_memory_are_known() -> None:
    assert look_at(Path("/proc/self")).kind == "proc"
    assert Place("nfs4", 1, 0.5).is_network
    assert not Place("ext4", 1, 0.5).is_network
    assert Place("tmpfs", 1, 0.5).is_volatile


def test_a_sound_file_has_no_damage(database: Database) -> None:
    with database.reading() as connection:
        assert damage(connection) == ""
