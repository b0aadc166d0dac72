"""The pictures of the README. `python -m tests.pictures` makes them from a running service."""
