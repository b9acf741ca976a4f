"""Which of a consumer's deliveries came to this worker. Pure.

A consumer numbers its deliveries, whichever client receives them. A number that does not arrive
here was handed to another client: an ack of it says nothing about this worker's database.
"""


class Deliveries:
    """Follows the numbers, which arrive in order.

    All numbers are the consumer's own sequences, but for those of the stream: `highest` is the
    highest one that has arrived, `lowest_new` the lowest one that has arrived for the first time
    since it was last set to None. Of every delivery up to `known` it is known where it went.
    """

    def __init__(self) -> None:
        self.highest = 0
        self.lowest_new: int | None = None
        self.known = 0
        self._delivered_before = 0
        self._gaps: list[tuple[int, int]] = []

    @property
    def foreign(self) -> int:
        """How many deliveries went to others, and are not accounted for."""
        return sum(last - first + 1 for first, last in self._gaps)

    def reset(self, delivered: int) -> None:
        """Begin behind the last delivery so far, with another connection or consumer."""
        self.known = self._delivered_before = delivered
        self._gaps = []

    def account_for(self, delivered: int) -> None:
        """Take every delivery up to a number as known: its message was read, or is a peer's."""
        self.known = max(self.known, delivered)
        self._gaps = [gap for gap in self._gaps if gap[1] > delivered]

    def reached(self, sequence: int, *, is_new: bool) -> None:
        """Note that a message with this sequence of the stream has arrived."""
        self.highest = max(self.highest, sequence)
        if is_new and (self.lowest_new is None or sequence < self.lowest_new):
            self.lowest_new = sequence

    def arrived(self, first: int, last: int, count: int) -> None:
        """Count `count` deliveries that arrived here together, numbered from `first` to `last`."""
        if last <= self.known:
            return
        known_already = max(0, self.known - first + 1)
        if last - self.known > count - known_already:
            self._gaps.append((self.known + 1, last))
        self.known = last

    def looked(self, delivered: int, ack_floor: int) -> None:
        """Compare with what the broker reports.

        A delivery that was made before the last look would have arrived by now, and one that is
        acked was received.
        """
        missed = max(ack_floor, self._delivered_before)
        if missed > self.known:
            self._gaps.append((self.known + 1, missed))
            self.known = missed
        self._delivered_before = delivered

    def are_ours(self, ack_floor: int) -> bool:
        """Return whether this worker received every delivery up to the ack floor."""
        return not self._gaps and ack_floor <= self.known
