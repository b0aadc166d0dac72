"""Random histories of the store's scripts against a model of what they must do.

The scripts run on a real server; its clock is the history's own.
"""
