from predictor.webhooks.deliverer import next_attempt


def test_exponential_back_off() -> None:
    for tries in range(1, 100):
        usual = min(2.0**tries, 3600)
        pauses = [next_attempt(tries, 0, 60, None) or 0 for _ in range(50)]
        assert all(0.9 * usual <= pause <= 1.1 * usual for pause in pauses)
        assert len(set(pauses)) > 1
    assert next_attempt(10**9, 0, 60, None)


def test_retry_after_only_lengthens_the_pause() -> None:
    assert next_attempt(1, 0, 1, 7000) == 7000
    assert (next_attempt(5, 0, 1, 0) or 0) > 28


def test_gives_up_after_a_day() -> None:
    assert next_attempt(3, 1000, 1000 + 86390, None)
    assert next_attempt(3, 1000, 1000 + 86399, None) is None
    assert next_attempt(1, 1000, 1000 + 80000, 7000) is None, "later than it is kept"
