"""The `predictor` command: serves, or calls an api. Its options override the environment."""

import argparse
import contextlib
import math
import sys
from collections.abc import Sequence

from predictor import __version__
from predictor.config import PREFIX, Config
from predictor.process import configure_logging, ends_if_misconfigured
from predictor.supervisor.supervisor import supervise

_SERVE = """Serve a model over HTTP: the api, its workers and, unless PREDICTOR_REDIS_URL is set, an
embedded store. Ctrl-C stops all of them"""
_JSONL = """each line of FILE (-: standard input) is {"input": "…"} or a JSON string; empty ones are
skipped. For each, in order: {"input": …, "result": …} or {"input": …, "error": …}. A line that is
neither stops the command before anything is run; in a pipe, it gets an error"""
_OUTPUT = """where the lines of --jsonl go. The same command goes on where it was stopped: there is
FILE.run until FILE is complete. A complete FILE is never written to"""
_EXIT = """exit status: 0 succeeded, 1 ended without a result (--jsonl: one line did), 2 bad usage,
or refused by the api, 66 no such prediction, 69 the api cannot be reached, 75 not ended in time, 78
bad configuration, 130 Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. Exits with 78 if it is misconfigured."""
    options = _parser().parse_args(arguments)
    given = vars(options).items()
    try:
        with ends_if_misconfigured():
            config = Config(**{name: value for name, value in given if name in Config.model_fields})
            if options.command not in {None, "serve"}:
                from predictor.client import commands  # not at the top: it would delay the server

                return commands.run_command(options, config)
            configure_logging(config)
            supervise(config)
    except KeyboardInterrupt:
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    settings = argparse.ArgumentParser(add_help=False, argument_default=argparse.SUPPRESS)
    for name in Config.model_fields:
        _add_setting(settings, name)
    parser = argparse.ArgumentParser(
        prog="predictor",
        description=f"{_SERVE}. With a command other than serve: call an api.",
        epilog="Every option is an environment variable, too; .env is read.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
        parents=[settings],
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text, epilog=_EXIT)
        _add_setting(command, "url")
        command.add_argument("--json", action="store_true", help="print the response as JSON")
        return command

    text = "the same as no command"
    commands.add_parser("serve", parents=[settings], help=text, description=f"{_SERVE}.")
    _add_predict(add("predict", "request one prediction of an api, or many"))
    status = add("status", "show the status of a prediction")
    status.add_argument("id")
    _add_wait(status, "wait for its end, and print the result")
    add("cancel", "cancel a prediction").add_argument("id")
    return parser


def _add_setting(parser: argparse.ArgumentParser, name: str) -> None:
    field = Config.model_fields[name]
    default = str("" if field.default is None else field.default) or "unset"
    text = f"{field.description} [{PREFIX}{name.upper()}, default {default}]".replace("%", "%%")
    option = "--" + name.replace("_", "-")
    parser.add_argument(option, default=argparse.SUPPRESS, metavar="VALUE", help=text)


def _add_predict(predict: argparse.ArgumentParser) -> None:
    predict.add_argument("text", nargs="?", help="the input of the model; -: all of standard input")
    text = "print its id as soon as it is accepted, without --wait"
    predict.add_argument("--async", dest="is_async", action="store_true", help=text)
    modes = predict.add_mutually_exclusive_group()
    _add_wait(modes, "run it asynchronously, and show its progress")
    modes.add_argument("--jsonl", metavar="FILE", help=_JSONL)
    predict.add_argument("--output", metavar="FILE", help=_OUTPUT)
    text = "lines of --jsonl that run at once [default 8]"
    predict.add_argument(
        "--concurrency", dest="at_once", type=_positive, default=8, metavar="N", help=text
    )


def _add_wait(parser: "argparse._ActionsContainer", text: str) -> None:
    text += "; stops waiting, not the prediction, after so many SECONDS"
    parser.add_argument(
        "--wait", nargs="?", type=_positive, const=math.inf, metavar="SECONDS", help=text
    )


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number above 0; a text or an id goes first")


if __name__ == "__main__":
    sys.exit(main())
