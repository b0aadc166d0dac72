"""Says its input in every way, some of it in two parts while others speak."""

import asyncio
import logging
import sys
import time
import warnings

from predictor import batched

logger = logging.getLogger("speaks")
#: Whose handler prints: what it prints must not come back to it.
_handler = logging.StreamHandler(sys.stdout)
_handler.addFilter(logging.Filter("speaks"))
logging.getLogger().addHandler(_handler)


def _say(text: str) -> None:
    logger.info("logged %s", text)
    warnings.warn(f"warned {text}", stacklevel=1)
    print("printed", text, "at ", end="")
    sys.stderr.write(f"written {text}\n")


def in_thread(text: str) -> str:
    if text == "sesame":
        raise RuntimeError("the model's own text")
    _say(text)
    time.sleep(0.1)
    print("last")
    return text


async def on_loop(text: str) -> str:
    _say(text)
    await asyncio.sleep(0.1)
    print("last")
    return text


@batched(max_size=4, max_wait=0.5)
def in_batch(texts: list[str]) -> list[str]:
    _say("+".join(texts))
    print("last")
    return texts
