"""The `predictor` command. Its options are the settings; the environment says what is not given."""

import argparse
import sys
from collections.abc import Sequence

from pydantic.fields import FieldInfo

from predictor import __version__
from predictor.config import PREFIX, Config
from predictor.errors import CANNOT_START, ConfigError
from predictor.logs import configure_logging
from predictor.supervisor import supervise


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the store, the api and the workers; answers the exit status."""
    options = vars(_parser().parse_args(arguments))
    try:
        config = Config(**{name: value for name, value in options.items() if value is not None})
        configure_logging(config)
        supervise(config)
    except ConfigError as error:
        print(f"predictor: {error}", file=sys.stderr)  # noqa: T201
        return CANNOT_START
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predictor",
        description="Serve a model over HTTP: the api, its workers and, unless PREDICTOR_REDIS_URL "
        "is set, an embedded store. Ctrl-C stops all of them.",
        epilog="Every option is an environment variable, too; .env is read.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    for name, field in Config.model_fields.items():
        parser.add_argument("--" + name.replace("_", "-"), metavar="VALUE", help=_help(name, field))
    return parser


def _help(name: str, field: FieldInfo) -> str:
    default = str("" if field.default is None else field.default) or "unset"
    return f"{field.description} [{PREFIX}{name.upper()}, default {default}]".replace("%", "%%")
