"""`predictor` as a client of an api."""
