"""Does what its input begins with; its results and its progress say what nobody else may read."""

import os
import time

from predictor import InvalidInput, Run

#: In no line of this file, and so in no traceback.
SECRET = "-".join(["c4n4ry", "of", "a", "result"])


def predict(text: str, run: Run) -> dict[str, object]:
    word = text.partition(" ")[0]
    run.progress(0.5, SECRET)
    run.output(SECRET)
    if word == "refuse":
        raise InvalidInput("The text must not be refused.")
    if word == "fail":
        raise RuntimeError
    if word == "exit":
        os._exit(3)
    if word == "sleep":
        time.sleep(0.5)
    return {"result": SECRET, "nan": float("nan")} if word == "nan" else {"result": SECRET + text}
