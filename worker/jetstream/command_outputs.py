"""Output from the object store for a command that projects messages again."""

from collections.abc import Callable, Iterator, Mapping, Sequence

from worker.jetstream.client import BrokerClient
from worker.jetstream.outputs import Group, Outputs
from worker.messages import Fetch, Message, Output
from worker.status.counters import Counters


class CommandOutputs:
    """Fetches over a connection that is opened by `connect` when the first object is needed."""

    def __init__(
        self, connect: Callable[[], BrokerClient], bucket: str, counters: Counters
    ) -> None:
        self._connect = connect
        self._outputs = Outputs(bucket, counters)

    def complete(
        self, messages: Sequence[Message], missing: Mapping[Message, Fetch]
    ) -> Iterator[list[Message]]:
        """Yield all messages in groups that fit memory, with what the `missing` ones name.

        The others need no object. Raises BrokerError where the object store does not answer.
        """
        group = Group()
        for message in messages:
            output = self._fetch(missing[message]) if message in missing else Output()
            group.add(message, output)
            if group.is_full:
                yield group.take()
        if group.messages:
            yield group.take()

    def _fetch(self, fetch: Fetch) -> Output:
        client = self._connect()
        self._outputs.attach(client.connection)
        return client.do(self._outputs.fetch_for_catch_up(fetch))
