"""Objects of the output that are not what agents write."""

import base64
import json
from typing import Any

from tests.support.broker import OUTPUT_BUCKET, Broker

_STREAM = f"OBJ_{OUTPUT_BUCKET}"


def make_bucket_that_refuses_readers(broker: Broker) -> None:
    """Create the bucket's stream so that it takes no more consumers."""
    config = {"name": _STREAM, "subjects": [f"$O.{OUTPUT_BUCKET}.>"], "allow_rollup_hdrs": True}
    broker.ask(f"STREAM.CREATE.{_STREAM}", **config, max_consumers=1)
    only = {"durable_name": "only", "ack_policy": "explicit"}
    broker.ask(f"CONSUMER.DURABLE.CREATE.{_STREAM}.only", stream_name=_STREAM, config=only)


def accept_readers(broker: Broker) -> None:
    broker.ask(f"CONSUMER.DELETE.{_STREAM}.only")


def describe(broker: Broker, key: str, **members: Any) -> None:
    """Replace members of an object's description."""
    _put_description(broker, key, json.dumps({**_description(broker, key), **members}).encode())


def replace_description(broker: Broker, key: str, raw: bytes) -> None:
    """Replace an object's description by any bytes."""
    _put_description(broker, key, raw)


def replace_chunks(broker: Broker, key: str, *chunks: bytes) -> None:
    """Replace an object's bytes, and leave its description as it is."""
    subject = f"$O.{OUTPUT_BUCKET}.C.{_description(broker, key)['nuid']}"
    broker.ask(f"STREAM.PURGE.{_STREAM}", filter=subject)
    for chunk in chunks:
        broker.publish(chunk, subject=subject)


def _subject(key: str) -> str:
    return f"$O.{OUTPUT_BUCKET}.M.{base64.urlsafe_b64encode(key.encode()).decode()}"


def _description(broker: Broker, key: str) -> dict[str, Any]:
    answer = broker.ask(f"STREAM.MSG.GET.{_STREAM}", last_by_subj=_subject(key))
    description: dict[str, Any] = json.loads(base64.b64decode(answer["message"]["data"]))
    return description


def _put_description(broker: Broker, key: str, raw: bytes) -> None:
    broker.publish(raw, subject=_subject(key), headers={"Nats-Rollup": "sub"})
