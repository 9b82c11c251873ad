"""Which offsets may be committed, and what waits for what."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from giclee.bus.progress import Progress
from giclee.bus.transport import Partition, Record

AT = Partition("t", 0)


def record(offset: int, key: bytes | None = None) -> Record:
    return Record(topic="t", partition=0, offset=offset, key=key, value=b"x")


def assigned() -> Progress:
    progress = Progress()
    progress.assign([AT])
    return progress


@given(st.permutations(range(8)))
def test_only_the_finished_prefix_may_be_committed(order: list[int]) -> None:
    """In whatever order records end, the committable offset never jumps over one that is still open."""
    progress = assigned()
    jobs = {offset: progress.read(record(offset)) for offset in range(8)}
    done: set[int] = set()
    for offset in order:
        job = jobs[offset]
        assert job is not None
        progress.settle(job)
        done.add(offset)
        prefix = next((n for n in range(8) if n not in done), 8)
        assert progress.committable().get(AT, 0) == prefix


def test_offsets_with_gaps_are_committed_past_the_gap() -> None:
    """Control records and compaction leave holes; what counts is what was read."""
    progress = assigned()
    first, second = progress.read(record(3)), progress.read(record(9))
    assert first
    assert second

    progress.settle(first)
    progress.settle(second)

    assert progress.committable() == {AT: 10}


def test_records_of_a_key_wait_for_each_other() -> None:
    """The second record of a key is handed out when the first was released, not before."""
    progress = assigned()
    first, other = progress.read(record(0, b"a")), progress.read(record(2, b"b"))

    assert progress.read(record(1, b"a")) is None
    assert first
    assert other
    following = progress.release(first)
    assert following is not None
    assert following.record.offset == 1
    assert progress.release(following) is None


def test_a_new_epoch_makes_old_work_stale() -> None:
    """After the partition moved away and came back, what was begun before no longer counts."""
    progress = assigned()
    job = progress.read(record(0))
    assert job

    progress.revoke([AT])
    progress.assign([AT])

    assert progress.is_stale(job)
    progress.settle(job)
    assert progress.committable() == {}


def test_records_of_a_partition_that_left_are_not_taken_in() -> None:
    """A poll that was under way during a rebalance brings nothing."""
    assert Progress().read(record(0)) is None


def test_work_that_no_poll_brought_is_never_stale() -> None:
    """A taken-over claim has its own fence."""
    from giclee.bus.progress import Job

    assert not Progress().is_stale(Job(record(0), AT, None))
