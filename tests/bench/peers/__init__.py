"""The same service made with other packages, as their documentation does it.

Each module is a front, a worker, or both: `POST /predict` with `{"input": "…"}` is answered with an
id, and `GET /predict/{id}` with 202 until it has the result; the sync ones answer with the result.
"""
