"""`uvicorn predictor.main:app`"""

from predictor.api.app import create_app
from predictor.config import Config
from predictor.process import configure_logging, ends_if_misconfigured

with ends_if_misconfigured():
    _config = Config()
    configure_logging(_config)
    app = create_app(_config)
