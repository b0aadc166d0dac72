"""`uvicorn predictor.main:app`"""

import sys

from predictor.api.app import create_app
from predictor.config import Config
from predictor.errors import CANNOT_START, ConfigError
from predictor.logs import configure_logging

try:
    _config = Config()
    configure_logging(_config)
    app = create_app(_config)
except ConfigError as error:
    print(f"predictor: {error}", file=sys.stderr)  # noqa: T201
    sys.exit(CANNOT_START)
