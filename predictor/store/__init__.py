"""Predictions in Redis: the only room that reads or writes a key, or has a script."""
