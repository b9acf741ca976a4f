"""Small measurements with the benchmark's own programs, a real server and real files."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import report
from tests.bench.contenders import (
    PROJECTOR,
    THIS_WORKER,
    CannotBuild,
    Contender,
    go_rival,
    other_worker,
    rivals,
)
from tests.bench.ends import COMPARED, MeasureEnds
from tests.bench.measure import Measure
from tests.bench.process import BenchFailed
from tests.bench.results import Ended, Latency, Results
from tests.bench.tables import MeasureTables, compared_with
from tests.support.nats_server import NatsServer
from tests.support.postgresql import cluster


@pytest.fixture(scope="module")
def measure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Measure]:
    folder = tmp_path_factory.mktemp("bench")
    server = NatsServer(folder).start()
    yield Measure(folder, server.url)
    server.stop()


@pytest.mark.parametrize("contender", [THIS_WORKER, *rivals()], ids=lambda each: each.title)
def test_each_program_writes_every_row(measure: Measure, contender: Contender) -> None:
    assert measure.drain(contender, 530).rate > 0


@pytest.mark.long
@pytest.mark.timeout(1000)
def test_the_go_program_writes_every_row(measure: Measure) -> None:
    try:
        contender = go_rival()
    except CannotBuild as error:
        pytest.skip(str(error))
    assert measure.drain(contender, 530).rate > 0


def test_the_worker_of_another_checkout_is_measured(measure: Measure, tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/projector").symlink_to(PROJECTOR)
    assert measure.drain(other_worker(tmp_path), 100).rate > 0


def test_a_program_that_fails_invalidates_the_measurement(measure: Measure) -> None:
    with pytest.raises(BenchFailed, match="invalid choice"):
        measure.drain(Contender("unknown", "rival", ("missing",)), 100)


def test_results_are_measured_beside_starts(measure: Measure) -> None:
    ends = MeasureEnds(measure.folder, measure.nats)
    measured = list(ends.round(200, reverse=True))
    kinds = [each.what for each in measured if isinstance(each, Ended)]
    assert set(kinds) >= COMPARED.keys() | set(COMPARED.values())
    floor, visible = (each for each in measured if isinstance(each, Latency))
    assert 0 < floor.seconds[0] < visible.seconds[0]
    tables = list(
        report.tables(Results(ends=[each for each in measured if isinstance(each, Ended)]))
    )
    assert [table.row_count for table in tables] == [len(kinds)]


@pytest.mark.long
def test_each_index_and_the_deletion_of_old_rows_are_measured_on_each_engine(
    measure: Measure,
) -> None:
    large = MeasureTables(measure.folder, measure.nats, cluster(), rows=3000)
    written = list(large.indexes(100, reverse=False))
    cases = {one.what for one in written}
    assert {"sqlite: starts, all indexes", "postgresql: results, without pc_id"} <= cases
    assert {compared_with(case) for case in cases} - {None} <= cases
    assert len(cases) == 2 * 2 * (1 + 7 + 1)
    deleted = [one for one in large.retention(100) if isinstance(one, Ended)]
    assert {one.what.partition(":")[0] for one in deleted} == {"sqlite", "postgresql"}
    assert all(one.messages > 1500 for one in deleted)


def test_latency_is_measured_beside_its_floor_and_drawn(measure: Measure) -> None:
    floor, latency = measure.floor(100, 60), measure.latency(THIS_WORKER, 100, 60)
    assert len(floor.seconds) == len(latency.seconds) == 60
    assert 0 < floor.seconds[0] < latency.seconds[0]
    if importlib.util.find_spec("matplotlib"):  # only the extra `bench` installs it
        from tests.bench.plots import draw

        results = Results([measure.drain(THIS_WORKER, 100)], [floor, latency])
        for name in draw(results, measure.folder):
            assert (measure.folder / name).read_bytes().startswith(b"\x89PNG")
