"""A hub and a leaf node, each with a JetStream domain of its own; the workers are at the leaf."""

from typing import NamedTuple

import pytest

from tests.integration.conftest import MakeServer, RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import Done, run_projector
from tests.support.deadlines import manifest
from tests.support.endpoints import OBSERVED
from tests.support.nats_server import NatsServer, free_address
from tests.support.restoring import wipe
from tests.support.rows import Rows

AT_HUB = ("--js-domain", "hub")


class Pair(NamedTuple):
    hub: NatsServer
    leaf: NatsServer

    def projector(self, rows: Rows, *arguments: str) -> Done:
        """Run a command at the leaf."""
        places = ("--database", rows.url, "--nats", self.leaf.url)
        starts = {"PROJECTOR_PROJECTION": "starts"}
        return run_projector(*arguments, *places, cwd=rows.path.parent, **starts)


@pytest.fixture
def pair(make_server: MakeServer) -> Pair:
    address = free_address()
    hub = make_server(f'leafnodes {{ listen: "{address}" }}', domain="hub").start()
    remote = f'{{ url: "nats://{address}" }}'
    leaf = make_server(f"leafnodes {{ remotes: [ {remote} ], reconnect: 1 }}", domain="leaf")
    return Pair(hub, leaf.start())


def test_a_worker_at_the_leaf_projects_the_hubs_stream_and_reads_it_again(
    pair: Pair, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    at_leaf = {"nats": pair.leaf.url}
    with Broker(pair.hub.url) as broker, Broker(pair.leaf.url) as leaf:
        broker.make_bucket()
        broker.put_manifest("job-1", manifest("20s"))
        run_until_idle(rows, *AT_HUB, "--create-stream", **at_leaf)
        worker = start_worker(rows, *AT_HUB, *OBSERVED, **at_leaf, pulling=True)
        broker.publish_starts(events.start() for _ in range(20))
        broker.publish(b"not JSON")
        worker.until(lambda: rows.count() == 20 and broker.is_acked())

        pair.hub.stop()
        worker.wait_for_error("pull.lost", "domain hub does not answer", within=20)
        pair.hub.start()
        worker.wait_for("worker.ready", times=2, within=20)
        broker.publish(result_id="after")
        worker.until(lambda: rows.count() == 21 and broker.is_acked())
        assert worker.stop() == 0

        wipe(rows)
        run_until_idle(rows, *AT_HUB, **at_leaf)
        assert rows.count() == 21
        assert rows.query("SELECT 1 FROM execution_results WHERE expires_at IS NULL") == []
        for command in ("status", "verify", "rebuild", "check"):
            done = pair.projector(rows, command, "--json", *AT_HUB)
            assert done.code == 0, done
        assert "JetStream domain hub" in done.output
        explained = pair.projector(rows, "explain", "after", "--json", *AT_HUB)
        assert (explained.code, explained.document["problems"]) == (0, [])
        retried = pair.projector(rows, "rejected", "retry", "--all", *AT_HUB)
        assert retried.output.endswith("1 rejected\n")
        assert not leaf.has_stream()


def test_a_stream_that_is_in_another_domain_is_reported_with_the_option(
    pair: Pair, rows: Rows, start_worker: StartWorker
) -> None:
    with Broker(pair.hub.url) as broker:
        broker.make_stream()
    text = (
        "stream EVENTS does not exist in the JetStream domain leaf, the server's own; "
        "if it is in another one, pass --js-domain"
    )
    worker = start_worker(rows, nats=pair.leaf.url)
    worker.wait_for_error("pull.lost", text)
    wrong = start_worker(rows, "--js-domain", "nowhere", nats=pair.leaf.url)
    wrong.wait_for_error("pull.lost", "the JetStream domain nowhere does not answer")
    assert worker.stop() == wrong.stop() == 0
    for command in ("check", "status", "verify"):
        done = pair.projector(rows, command)
        assert text in done.output + done.errors
    done = pair.projector(rows, "check", *AT_HUB, "--stream", "OTHER")
    assert "stream OTHER does not exist in the JetStream domain hub; the fleet's" in done.output
    assert "nowhere does not answer" in pair.projector(rows, "status", "--js-domain=nowhere").output


def test_streams_of_one_name_in_two_domains_have_workers_that_do_not_disturb_each_other(
    pair: Pair, rows: Rows, tmp_path_factory: pytest.TempPathFactory, start_worker: StartWorker
) -> None:
    others = Rows(tmp_path_factory.mktemp("other") / "other.db")
    others.migrate()
    with Broker(pair.hub.url) as hub, Broker(pair.leaf.url) as leaf:
        # Both servers would store what is published, as one account reaches both.
        hub.make_stream()
        leaf.make_stream(subjects=["events.started.leaf.>"])
        hub.publish()
        at_hub = start_worker(rows, *AT_HUB, nats=pair.leaf.url)
        at_hub.wait_for("worker.ready")
        at_leaf = start_worker(others, nats=pair.leaf.url)
        at_leaf.wait_for("worker.ready")
        assert [worker.stop() for worker in (at_hub, at_leaf)] == [0, 0]
        assert at_hub.logged("consumer.shared") == at_leaf.logged("consumer.shared") == []
