"""The `predictor` command. Its options are the settings; the environment says what is not given."""

import argparse
import contextlib
import math
import sys
from collections.abc import Sequence

from pydantic.fields import FieldInfo

from predictor import __version__
from predictor.config import PREFIX, Config
from predictor.errors import CANNOT_START, ConfigError
from predictor.process import configure_logging
from predictor.supervisor.supervisor import supervise

_JSONL = """each line of FILE (-: standard input) is {"input": "…"} or a JSON string; empty ones are
skipped. For each, in order: {"input": …, "result": …} or {"input": …, "error": …}. A line that is
neither stops the command before anything is run; in a pipe, it is answered by an error"""

_OUTPUT = """where the lines of --jsonl go. The same command goes on where it was stopped: there is
FILE.run until FILE is complete. A complete FILE is never written to"""

_EXIT = """exit status: 0 succeeded, 1 ended without a result (--jsonl: one line did), 2 bad usage,
or refused by the api, 66 no such prediction, 69 the api cannot be reached, 75 not ended in time, 78
bad configuration, 130 Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Start the store, the api and the workers, or ask an api; answers the exit status."""
    options = _parser().parse_args(arguments)
    given = {name: value for name, value in vars(options).items() if value is not None}
    try:
        config = Config(**{name: given[name] for name in Config.model_fields if name in given})
        if options.command:
            from predictor.client import commands  # what it needs would make the others start later

            return commands.run(options, config)
        configure_logging(config)
        supervise(config)
    except ConfigError as error:
        print(f"predictor: {error}", file=sys.stderr)  # noqa: T201
        return CANNOT_START
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="predictor",
        description="Serve a model over HTTP: the api, its workers and, unless PREDICTOR_REDIS_URL "
        "is set, an embedded store. Ctrl-C stops all of them. With a command: ask an api.",
        epilog="Every option is an environment variable, too; .env is read.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    for name, field in Config.model_fields.items():
        parser.add_argument("--" + name.replace("_", "-"), metavar="VALUE", help=_help(name, field))
    _add_commands(parser)
    return parser


def _add_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, epilog=_EXIT)
        url = _help("url", Config.model_fields["url"])
        command.add_argument("--url", default=argparse.SUPPRESS, metavar="VALUE", help=url)
        command.add_argument("--json", action="store_true", help="print the whole answer, as JSON")
        return command

    _add_predict(add("predict", "ask an api for one prediction, or for many"))
    status = add("status", "tell how far a prediction has come")
    status.add_argument("id")
    _add_wait(status, "wait for its end, and print the result")
    add("cancel", "end a prediction that waits or runs").add_argument("id")


def _add_predict(predict: argparse.ArgumentParser) -> None:
    text = "what the model is to work on; -: all of standard input"
    predict.add_argument("text", nargs="?", help=text)
    text = "print its id as soon as it is accepted, without --wait"
    predict.add_argument("--async", dest="is_async", action="store_true", help=text)
    modes = predict.add_mutually_exclusive_group()
    _add_wait(modes, "run it asynchronously, and show how far it has come")
    modes.add_argument("--jsonl", metavar="FILE", help=_JSONL)
    predict.add_argument("--output", metavar="FILE", help=_OUTPUT)
    text = "lines of --jsonl that run at once [default 8]"
    predict.add_argument(
        "--concurrency", dest="at_once", type=_positive, default=8, metavar="N", help=text
    )


def _add_wait(parser: "argparse._ActionsContainer", text: str) -> None:
    text += "; gives up waiting, not the prediction, after so many SECONDS"
    parser.add_argument(
        "--wait", nargs="?", type=_positive, const=math.inf, metavar="SECONDS", help=text
    )


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number above 0; a text or an id goes first")


def _help(name: str, field: FieldInfo) -> str:
    default = str("" if field.default is None else field.default) or "unset"
    return f"{field.description} [{PREFIX}{name.upper()}, default {default}]".replace("%", "%%")
