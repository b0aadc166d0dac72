"""Weights that serve one call at a time, as a GPU does: 20 ms a call, however many are in it."""

import threading
import time

from predictor import batched

_DEVICE = threading.Lock()


def predict_one(text: str) -> str:
    with _DEVICE:
        time.sleep(0.02)
    return text.upper()


@batched(max_size=32, max_wait=0.005)
def predict_many(texts: list[str]) -> list[str]:
    with _DEVICE:
        time.sleep(0.02)
    return [text.upper() for text in texts]
