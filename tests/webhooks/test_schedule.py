import time

import pytest

from predictor.prediction import Attempt, Delivery, DeliveryState, Prediction, PredictionId, State
from predictor.webhooks.deliverer import state_after


def _pause(tries: int, tried_for: float, retry_after: float | None = None) -> float | None:
    """Seconds until the next attempt, after `tries` that failed; None: given up."""
    now = time.time()
    ended = Prediction(PredictionId("x"), State.FAILED, now)
    delivery = Delivery("https://a.example", ended, tries - 1, now - tried_for)
    attempt = Attempt(now, 1, 500, "It answered 500.", retry_after)
    return state_after(attempt, delivery)[1]


def test_exponential_back_off() -> None:
    for tries in range(1, 100):
        usual = min(2.0**tries, 3600)
        pauses = [_pause(tries, 60) or 0 for _ in range(50)]
        assert all(0.9 * usual <= pause <= 1.1 * usual for pause in pauses)
        assert len(set(pauses)) > 1
    assert _pause(10**9, 60)


def test_retry_after_only_lengthens_the_pause() -> None:
    assert _pause(1, 1, 7000) == 7000
    assert (_pause(5, 1, 0) or 0) > 28


def test_gives_up_after_a_day() -> None:
    assert _pause(3, 86390)
    assert _pause(3, 86399) is None
    assert _pause(1, 80000, 7000) is None, "later than it is kept"


@pytest.mark.parametrize(
    ("status", "error", "tried_for", "state"),
    [
        (204, None, 0, DeliveryState.DELIVERED),
        (204, None, 10**6, DeliveryState.DELIVERED),
        (410, "It answered 410.", 0, DeliveryState.FAILED),
        (404, "It answered 404.", 0, DeliveryState.PENDING),
        (404, "It answered 404.", 10**6, DeliveryState.FAILED),
        (None, "It could not be connected to.", 0, DeliveryState.PENDING),
    ],
)
def test_state_after_an_attempt(
    status: int | None, error: str | None, tried_for: float, state: DeliveryState
) -> None:
    now = time.time()
    ended = Prediction(PredictionId("x"), State.FAILED, now)
    delivery = Delivery("https://a.example", ended, 0, now - tried_for)
    reached, pause = state_after(Attempt(now, 1, status, error), delivery)
    assert reached is state
    assert (pause is not None) == (state is DeliveryState.PENDING)
