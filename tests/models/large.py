"""Answers that are large. Input: how many bytes."""

from predictor import Run


async def predict(text: str) -> str:
    return "x" * int(text)


async def talk(text: str, run: Run) -> str:
    for _ in range(60):
        run.output("x" * int(text))
    return "done"
