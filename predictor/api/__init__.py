"""Predictor over HTTP. Knows neither Redis nor arq."""
