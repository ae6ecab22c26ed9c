"""The batcher: oldest first, batches filled or waited for, files behind live streams, nobody starves."""

import threading

from rechka.engine.batcher import Batcher
from rechka.testing.waiting import PATIENCE_S


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def batcher(**options):
    clock = Clock()
    return Batcher(**{"max_wait_s": 0.0, "clock": clock, **options}), clock


def test_oldest_first_and_no_more_than_fit():
    queue, _ = batcher(max_batch=2)
    for item in "abc":
        queue.offer(item)
    assert queue.take() == ["a", "b"]
    assert queue.take() == ["c"]


def test_an_item_that_has_more_to_do_goes_to_the_end():
    queue, _ = batcher(max_batch=1)
    queue.offer("long")
    queue.offer("short")
    assert queue.take() == ["long"]
    assert queue.release("long", again=True)
    assert queue.take() == ["short"]
    assert queue.take() == ["long"]


def test_offered_while_out_means_again():
    queue, _ = batcher()
    queue.offer("a")
    assert queue.take() == ["a"]
    queue.offer("a")
    assert queue.waiting() == (0, 0), "it must not be given to a second worker"
    assert queue.release("a", again=False)
    assert queue.take() == ["a"]
    assert not queue.release("a", again=False)
    assert not queue.busy("a")


def test_discarded_items_do_not_come_back():
    queue, _ = batcher()
    queue.offer("a")
    assert queue.take() == ["a"]
    queue.offer("a")
    queue.discard("a")
    assert not queue.release("a", again=False)
    queue.offer("b")
    queue.discard("b")
    assert queue.waiting() == (0, 0)


def test_live_before_bulk_but_bulk_does_not_starve():
    queue, clock = batcher(max_batch=1, patience_s=1.0)
    queue.offer("file", bulk=True)
    queue.offer("live")
    assert queue.take() == ["live"]
    queue.release("live", again=True)
    assert queue.take() == ["live"], "it has not waited long enough yet"
    queue.release("live", again=True)
    clock.now = 1.5
    assert queue.take() == ["file"]
    queue.release("file", again=True)
    assert queue.take() == ["live"]


def test_one_of_several_workers_keeps_free_of_files():
    queue, _ = batcher(max_batch=1, workers=2)
    queue.offer("file 1", bulk=True)
    queue.offer("file 2", bulk=True)
    assert queue.take() == ["file 1"]
    taken = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    queue.offer("live")
    thread.join(PATIENCE_S)
    assert taken == [["live"]]
    queue.release("file 1", again=False)
    assert queue.take() == ["file 2"]


def test_pressure_remembers_the_longest_recent_wait():
    queue, clock = batcher()
    queue.offer("a")
    clock.now = 3.0
    assert queue.age() == queue.pressure() == 3.0
    queue.take()
    assert queue.age() == 0.0
    assert queue.pressure() == 3.0
    clock.now = 10.0
    assert queue.pressure() == 0.0


def test_a_batch_waits_for_company():
    queue = Batcher(max_batch=2, max_wait_s=60.0)
    queue.offer("a")
    taken = []
    thread = threading.Thread(target=lambda: taken.append(queue.take()))
    thread.start()
    queue.offer("b")
    thread.join(PATIENCE_S)
    assert taken == [["a", "b"]]


def test_close_wakes_all_workers():
    queue = Batcher(max_wait_s=60.0)
    taken = []
    threads = [threading.Thread(target=lambda: taken.append(queue.take())) for _ in range(3)]
    for thread in threads:
        thread.start()
    queue.close()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert taken == [None] * 3
