"""Changes what it shares with the process that runs it, as scripts do."""

import io
import logging.config
import os
import random
import sys

logging.config.dictConfig({"version": 1})  # which disables all loggers that are there
logging.basicConfig(level=logging.DEBUG, force=True)
sys.stdout = io.TextIOWrapper(sys.stdout.buffer, encoding="utf-8")
os.chdir("/")


class OddError(Exception):
    exceptions = None  # not those of a group


def predict(text: str) -> str:
    random.seed(1)
    if text == "odd":
        raise OddError
    print("begun", text, end="")
    return text
