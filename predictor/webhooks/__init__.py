"""Tells a client's own server that a prediction has ended: where it may be, and how it is told."""
