"""Predictions in Redis: the only room that knows a key, a script or arq's format."""
