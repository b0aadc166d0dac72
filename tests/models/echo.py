"""Answers what it is asked."""


async def predict(text: str) -> str:
    return text


def predict_in_thread(text: str) -> str:
    return text
