"""The fleet's own database at each of its versions, and its own migrations after ours."""

import pytest

from tests.repo.migrating import schema_of
from tests.repo.rows import Db, result

# What the fleet's own program has added since the version of fleet.sql, in its order.
LATER = (
    "CREATE INDEX idx_results_recorded ON execution_results (recorded_at)",
    "ALTER TABLE execution_results ADD COLUMN parent_result_id TEXT",
    "ALTER TABLE execution_results ADD COLUMN skipped INTEGER NOT NULL DEFAULT 0",
)


@pytest.mark.parametrize("version", range(len(LATER) + 1))
def test_our_migrations_apply_to_each_version_and_the_fleets_own_still_do_afterwards(
    fleet: Db, version: int
) -> None:
    for migration in LATER[:version]:
        fleet.ask(migration)
    theirs = schema_of(fleet)
    fleet.database.migrate()
    assert theirs.items() <= schema_of(fleet).items()
    assert ("execution_results_recorded_at" in schema_of(fleet)) is (version == 0)
    fleet.write_results(result("before", skipped=True, parent_result_id="parent"))
    for migration in LATER[version:]:
        fleet.ask(migration)
    assert fleet.database.pending_migrations() == []
    fleet.write_results(result("after", skipped=True, parent_result_id="parent"))
    rows = [fleet.row_of(name) for name in ("before", "after")]
    assert [(row["parent_result_id"], row["skipped"]) for row in rows] == [
        ("parent" if version >= 2 else None, int(version >= 3)),
        ("parent", 1),
    ]
