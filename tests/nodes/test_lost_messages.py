"""Messages that did not arrive are counted from the numbers of their publishers, also when these come and go."""

from __future__ import annotations

from sensebind.fusion.io.received.sequences import LossCounter, TopicLosses


class Topic:
    """A topic with some publishers, and the sums of what its counter found."""

    def __init__(self) -> None:
        self.publishers, self.earlier, self.lost = 1, 0, 0
        self._counter = LossCounter(lambda: self.publishers)

    def receive(self, *numbers: int) -> tuple[int, int]:
        """Receive messages with these numbers. Returns (earlier, lost) so far."""
        for number in numbers:
            earlier, lost = self._counter.count_missing(number)
            self.earlier, self.lost = self.earlier + earlier, self.lost + lost
        return self.earlier, self.lost


def test_messages_before_the_first_and_in_gaps_are_counted_apart() -> None:
    assert Topic().receive(1, 2, 3) == (0, 0)
    assert Topic().receive(5, 6, 9, 10, 12) == (4, 3)


def test_a_publisher_that_starts_again_is_counted_from_its_first_message() -> None:
    topic = Topic()
    topic.receive(*range(1, 501))
    topic.publishers = 2  # the middleware notices later that the first one was killed
    assert topic.receive(4, 5, 7) == (3, 1)
    topic.publishers = 1
    assert topic.receive(*range(8, 700), 702) == (3, 3)


def receive_of(counter: LossCounter, publisher: bytes, *numbers: int) -> list[tuple[int, int]]:
    return [counter.count_missing(number, publisher) for number in numbers]


def test_a_new_publisher_is_known_by_its_identity_and_is_no_gap() -> None:
    """Its first number may be above the newest one of a publisher that was killed, or the next after it."""
    counter = LossCounter(lambda: 1)
    assert receive_of(counter, b"old", 3, 4, 7) == [(2, 0), (0, 0), (0, 2)]
    assert receive_of(counter, b"new", 8, 9, 12) == [(7, 0), (0, 0), (0, 2)]
    assert receive_of(counter, b"old", 8) == [(0, 0)]
    assert receive_of(counter, b"third", 1, 2) == [(0, 0), (0, 0)]


def test_what_was_published_while_nothing_was_received_on_purpose_is_no_loss() -> None:
    counter = LossCounter(lambda: 2)
    receive_of(counter, b"one", *range(1, 11))
    counter.pause()
    assert receive_of(counter, b"one", 31, 32, 34) == [(20, 0), (0, 0), (0, 1)]
    assert receive_of(counter, b"two", 6, 7) == [(5, 0), (0, 0)]


def test_a_second_publisher_that_comes_and_goes_costs_no_message() -> None:
    topic = Topic()
    topic.receive(*range(1, 301))
    topic.publishers = 2
    for number in range(1, 21):
        topic.receive(300 + number, number)
    assert topic.receive(330) == (0, 9)
    topic.publishers = 1
    assert topic.receive(331, 333, 334) == (0, 10)


def test_publishers_whose_numbers_are_near_each_other_lose_nothing() -> None:
    topic = Topic()
    topic.publishers = 2
    for number in range(1, 100):
        topic.receive(number, number)
    assert topic.receive(100, 101, 100, 101) == (0, 0)


def test_the_first_message_of_another_publisher_is_no_gap() -> None:
    topic = Topic()
    topic.receive(1, 2)
    topic.publishers = 2
    assert topic.receive(900, 3, 901, 4, 902, 6) == (0, 1)


def test_a_subscription_counts_none_twice_that_an_earlier_one_has_counted() -> None:
    known = 0
    losses = TopicLosses(lambda: 1)
    losses.resume(lambda: known)
    assert [losses.missing_before(number) for number in (3, 4, 6)] == [(2, 0), (0, 0), (0, 1)]
    known = 6  # 3 of them arrived
    losses.resume(lambda: known)
    assert [losses.missing_before(number) for number in (11, 12)] == [(4, 0), (0, 0)], "7 to 10, in the pause"
    assert losses.missing_as_reported(4) == 0, "the numbers say more"
    losses.resume(lambda: known)
    assert [losses.missing_before(number, b"one") for number in (2, 4)] == [(1, 0), (0, 1)], "of another publisher"


def test_without_numbers_the_losses_are_those_that_the_middleware_reports() -> None:
    losses = TopicLosses(lambda: 1)
    assert losses.missing_before(None) == (0, 0) and losses.missing_as_reported(4) == 4


def test_a_report_of_the_middleware_before_the_first_number_counts_none_twice() -> None:
    for first, wanted in ((1, (0, 1)), (3, (2, 1))):  # the report is served before messages that came before it
        lost = earlier = 0
        losses = TopicLosses(lambda: 1)
        losses.resume(lambda: lost + earlier)  # noqa: B023, called in this turn
        lost += losses.missing_as_reported(1)
        for number in (first, first + 2):
            before, since = losses.missing_before(number)
            earlier, lost = earlier + before, lost + since
        assert (earlier, lost) == wanted
