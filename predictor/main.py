"""`uvicorn predictor.main:app`"""

from predictor.api.app import create_app
from predictor.config import Config
from predictor.process import ends_if_misconfigured, start_logging

with ends_if_misconfigured():
    _config = Config()
    start_logging(_config, prints=True)
    app = create_app(_config)
