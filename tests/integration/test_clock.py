"""What the broker's clock shows, on a real server."""

import time

import pytest

from tests.support.broker import Broker
from worker.codec.timestamps import NANOSECONDS
from worker.jetstream.client import BrokerClient
from worker.jetstream.clock import broker_time
from worker.jetstream.stream import read_state
from worker.projections.starts import STARTS
from worker.settings import Settings
from worker.status.broker_clock import BrokerClock


def test_an_old_server_is_asked_for_its_time_again_after_ten_minutes(deployment: Broker) -> None:
    if deployment.version >= (2, 10):
        pytest.skip("servers since 2.10 report their time in each answer")
    settings = Settings((deployment.url,), "sqlite:///no.db")
    passed = 0
    consumers = []
    with BrokerClient(settings) as client:
        client.connection.clock = BrokerClock(
            lambda: time.monotonic_ns() + round(passed * NANOSECONDS)
        )
        for seconds in (0, 590, 601):
            passed = seconds
            told = client.do(broker_time(client.connection, settings, STARTS.read_filter))
            consumers.append(len(deployment.readers()))
    assert consumers == [1, 1, 2]
    assert abs(told - time.time_ns()) < NANOSECONDS


def test_a_server_since_2_10_reports_its_time_in_each_answer(deployment: Broker) -> None:
    if deployment.version < (2, 10):
        pytest.skip("needs nats-server 2.10; set NATS_SERVER")
    settings = Settings((deployment.url,), "sqlite:///no.db")
    with BrokerClient(settings) as client:
        assert client.connection.clock.now is None
        client.do(read_state(client.connection, settings.stream))
        told = client.do(broker_time(client.connection, settings, STARTS.read_filter))
    assert deployment.readers() == []
    assert abs(told - time.time_ns()) < NANOSECONDS
