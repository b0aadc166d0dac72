"""A Python client: Client blocks, AsyncClient is for asyncio. Their errors: predictor.errors."""

from predictor.client.asynchronous import AsyncClient, AsyncPrediction, Event, Status
from predictor.client.blocking import Client, Prediction

__all__ = ["AsyncClient", "AsyncPrediction", "Client", "Event", "Prediction", "Status"]
