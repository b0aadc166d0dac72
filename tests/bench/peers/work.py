"""What every system runs, and the bodies of every front."""

import asyncio
import os
from typing import Any

from pydantic import BaseModel

SECONDS = float(os.environ.get("BENCH_SECONDS", "0"))
SLOTS = 100
STORE = os.environ.get("PREDICTOR_REDIS_URL", "")


async def predict(text: str) -> str:
    if SECONDS:
        await asyncio.sleep(SECONDS)
    return text


class Input(BaseModel):
    input: str


class Output(BaseModel):
    input: str
    result: str


class Accepted(BaseModel):
    message: str = "Request received. Processing asynchronously."
    prediction_id: str


class Done(BaseModel):
    prediction_id: str
    output: Any


class Pending(BaseModel):
    error: str = "Prediction is still being processed."
