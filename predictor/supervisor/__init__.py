"""`predictor` as a server: store, api and workers, started, kept and stopped."""
