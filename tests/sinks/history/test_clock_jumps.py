"""A wall clock that leaps forth and back by hours: nothing is damaged, and what is measured now is what is answered."""

from __future__ import annotations

from tempfile import TemporaryDirectory

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sinks.history.tiers import FIVE_MINUTES, ONE_HOUR
from tests.sinks.history.small import START_MS, Clock, at, opened, samples

EVERY_S = 30
HOUR_S = 3600
_leap = st.one_of(
    st.just(0),
    st.sampled_from([HOUR_S, -HOUR_S, 2 * HOUR_S + 1, -61 - EVERY_S, 3 * 86_400]),
    st.integers(61, 8 * HOUR_S),
    st.integers(-8 * HOUR_S, -61 - EVERY_S),  # less is a late reading
)
_life = st.lists(st.tuples(_leap, st.integers(1, 80), st.booleans(), st.booleans()), min_size=1, max_size=8)


@settings(max_examples=10)  # 26 hours each
@given(_life)
@example([(0, 60, True, False), (HOUR_S, 60, True, False)])  # an hour is missing
@example([(0, 80, True, False), (-HOUR_S, 10, True, False), (0, 10, True, True)])  # an hour is lived again
@example(
    [(0, 80, False, False), (-HOUR_S, 10, False, False), (3 * 86_400, 5, True, False), (-3 * 86_400, 9, True, True)]
)
def test_whatever_the_clock_does_the_present_is_answered(life: list[tuple[int, int, bool, bool]]) -> None:
    """Of each stretch: by how much the clock leaps before it, its samples, whether it is written, and then reopened."""
    now, value = 0, 0.0
    with TemporaryDirectory() as directory:
        clock = Clock()
        history = opened(directory, clock)
        for leap, count, is_written, is_reopened in life:
            now += leap
            begin, measured = now + EVERY_S, []
            for _ in range(count):
                now, value = now + EVERY_S, value + 1
                clock.be_at(now)
                history.append(at(now, {"a": value}))
                measured.append((float(now), value))
            if is_written:
                assert history.write(), history.status().trouble
            if is_reopened:
                history.close()
                history = opened(directory, clock)
            assert samples(history, "a", begin, now) == measured
        # The next day is as any other: tiers are built, nothing waits for a time that will not come again.
        for number in range(26 * 12):
            now += 300
            clock.be_at(now)
            history.append(at(now, {"a": 1.0}))
            assert number % 6 or history.write()
        assert history.write()
        status, now_ms = history.status(), START_MS + now * 1000
        assert history._store.built_until(FIVE_MINUTES) > now_ms - 2 * HOUR_S * 1000
        assert history._store.built_until(ONE_HOUR) > now_ms - 26 * HOUR_S * 1000
        assert (status.damaged_blocks, status.lost_rows, status.set_aside) == (0, 0, ())
        day = history.querier().instant('count_over_time(place_x{at="a"}[24h])', now_ms)
        assert [sample.value for sample in day.vector()] == [288.0]
        history.close()
