"""The benchmark: Predictor, its peers and the bare machine on the same work.

`uv run --group bench python -m tests.bench` runs it; `--help` says what can be chosen.
"""
