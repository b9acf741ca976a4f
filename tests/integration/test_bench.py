"""Small measurements by the benchmark's own programs, on a real broker and real files."""

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench.data import DataSet
from tests.bench.drain import Drain, Drainer
from tests.bench.latency import LatencyMeter
from tests.bench.process import BenchFailed
from tests.bench.rivals import DECODE_SQLITE, RIVALS, SERIAL, WORKER, Rival, drain_rivals
from tests.bench.tables import Templates
from tests.support.nats_server import NatsServer


@pytest.fixture(scope="module")
def bench_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A server whose streams the measurements may delete."""
    server = NatsServer(tmp_path_factory.mktemp("bench-nats")).start()
    yield server
    server.stop()


@pytest.fixture
def drainer(bench_server: NatsServer, tmp_path: Path) -> Drainer:
    return Drainer(tmp_path, bench_server.url, bench_server.pid, Templates(tmp_path))


@pytest.mark.parametrize("rival", drain_rivals(), ids=lambda rival: rival.key)
def test_every_program_drains_a_backlog_to_the_last_row(drainer: Drainer, rival: Rival) -> None:
    measured = drainer.measure(Drain("drain", rival, DataSet(500), old_rows=100))
    assert measured.events == 500
    assert measured.events_a_second > 0
    if rival.needs_broker:
        assert measured.peak_memory > 1_000_000
        assert measured.first_event_after is not None
        assert measured.first_event_after > 0


def test_several_workers_begin_together(drainer: Drainer) -> None:
    drain = Drain("workers", RIVALS[WORKER], DataSet(1500), workers=2, held_back=True)
    measured = drainer.measure(drain)
    assert 0 < measured.events <= 1500


def test_a_program_that_fails_makes_the_measurement_void(drainer: Drainer) -> None:
    failing = Rival(SERIAL, "a program that is not there", "missing")
    with pytest.raises(BenchFailed, match="missing"):
        drainer.measure(Drain("drain", failing, DataSet(100)))


def test_latency_is_measured_beside_its_floor(bench_server: NatsServer, tmp_path: Path) -> None:
    meter = LatencyMeter(tmp_path, bench_server.url, Templates(tmp_path))
    latency = meter.measure(100, 60, seed=3)
    assert 0 < latency.floor_p50 <= latency.floor_p99
    assert 0 < latency.p50 <= latency.p99 <= latency.most
    assert latency.points[-1] == latency.most


if importlib.util.find_spec("matplotlib") is not None:  # of the extra `bench`

    def test_plots_are_drawn_of_whatever_was_measured(drainer: Drainer, tmp_path: Path) -> None:
        from tests.bench import plots
        from tests.bench.results import Results

        drains = [
            drainer.measure(Drain("drain", RIVALS[key], DataSet(200)))
            for key in (WORKER, DECODE_SQLITE)
        ]
        (drawn,) = plots.draw(Results(drains), tmp_path)
        assert drawn.read_bytes().startswith(b"\x89PNG")
