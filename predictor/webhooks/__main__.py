"""`python -m predictor.webhooks` delivers until SIGTERM or SIGINT."""

import asyncio
import logging
import signal

from predictor.config import Config
from predictor.process import ends_if_misconfigured, notify_ready, start_logging
from predictor.store.deliveries import Deliveries
from predictor.traces import start_tracing
from predictor.webhooks.deliverer import Deliverer
from predictor.webhooks.sender import Sender


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    notify_ready()
    if not config.signing_secrets:
        logger = logging.getLogger("predictor.webhooks")
        logger.warning("PREDICTOR_WEBHOOK_SECRETS is unset: no webhooks are delivered")
        await stop.wait()
        return
    deliveries, traces = Deliveries(config), start_tracing()
    sender = Sender(config.allowed_targets, config.signing_secrets)
    await Deliverer(deliveries, sender, traces).run(stop, config.drain)
    await deliveries.close()
    if traces:
        await traces.close()


if __name__ == "__main__":
    with ends_if_misconfigured():
        _config = Config()
        start_logging(_config)
        asyncio.run(_serve(_config))
