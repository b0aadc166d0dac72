"""A Python client: Client blocks, AsyncClient is for asyncio. Their errors: predictor.errors."""

from predictor.client.api import Event
from predictor.client.asynchronous import AsyncClient, AsyncPrediction, Status
from predictor.client.blocking import Client, Prediction

__all__ = ["AsyncClient", "AsyncPrediction", "Client", "Event", "Prediction", "Status"]
