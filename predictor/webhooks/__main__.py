"""The deliverer's process: python -m predictor.webhooks"""

import asyncio
import logging
import signal
import sys

from predictor.allowlist import Allowed
from predictor.config import Config
from predictor.errors import CANNOT_START, ConfigError
from predictor.logs import configure_logging
from predictor.notify import notify_ready
from predictor.store.connection import DEFAULT_URL
from predictor.store.deliveries import Deliveries
from predictor.webhooks.deliverer import Deliverer
from predictor.webhooks.sender import Sender

logger = logging.getLogger("predictor.webhooks")


async def _serve(config: Config) -> None:
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(signum, stop.set)
    notify_ready()
    if not config.signing_secrets:
        logger.warning("PREDICTOR_WEBHOOK_SECRETS is unset: there are no webhooks")
        await stop.wait()
        return
    url = config.redis_url.get_secret_value() if config.redis_url else DEFAULT_URL
    deliveries = Deliveries(url, lease=config.lease, result_ttl=config.result_ttl)
    async with Sender(Allowed.parse(config.webhook_allow), config.signing_secrets) as sender:
        await Deliverer(deliveries, sender).run(stop, config.drain)
    await deliveries.close()


def main() -> int:
    """Deliver until a signal; answers the exit status."""
    try:
        config = Config()
        configure_logging(config)
        asyncio.run(_serve(config))
    except ConfigError as error:
        print(f"predictor: {error}", file=sys.stderr)  # noqa: T201
        return CANNOT_START
    return 0


if __name__ == "__main__":
    sys.exit(main())
