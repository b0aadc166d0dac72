"""The `predictor` command: a server, or a client. Options override the environment."""

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Sequence
from typing import Any

from predictor import __version__
from predictor.config import PREFIX, Config
from predictor.process import ends_if_misconfigured, start_logging
from predictor.supervisor.supervisor import supervise

_SERVE = """Serve a model over HTTP: the API, its workers and, unless PREDICTOR_REDIS_URL is set, an
embedded store. Ctrl-C stops all of them"""
_JSONL = """each line of FILE (-: standard input) is {"input": …} or a JSON string; empty ones are
skipped. For each, in order: {"input": …, "result": …} or {"input": …, "error": …}. An invalid line
stops the command before anything is run; in a pipe, its output is an error"""
_OUTPUT = """file for the output of --jsonl. The same command resumes after a stop: FILE.run exists
until FILE is complete. A complete FILE is never overwritten"""
_EXIT = """exit status: 0 succeeded, 1 ended without a result (--jsonl: one line did) or invalid
input, 2 bad usage, or refused by the API, 66 no such prediction, 69 the API cannot be reached, 75
not ended in time, 78 invalid setting, 130 Ctrl-C"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status. Exits with 78 if it is misconfigured."""
    _open_missing_streams()
    options = _parser().parse_args(arguments)
    try:
        if options.command == "doctor":
            from predictor.supervisor import doctor  # not at the top, as `commands` below

            return doctor.diagnose(vars(options), as_json=options.json)
        is_client = options.command not in {None, "serve"}
        with ends_if_misconfigured(is_client=is_client):
            config = Config(**vars(options))
            if is_client:
                sys.modules.setdefault("httpx._main", None)  # type: ignore[arg-type]  # heavy
                from predictor.client import commands  # not at the top: it would delay the server

                return commands.run_command(options, config)
            start_logging(config)
            supervise(config)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # End as SIGPIPE would; what is flushed at exit is dropped.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    return 0


def _open_missing_streams() -> None:
    """Where a standard stream is closed, a socket would get its number, which libuv refuses."""
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            stream = open(os.devnull, "r" if name == "stdin" else "w")  # noqa: PTH123, SIM115
            os.set_inheritable(stream.fileno(), True)
            setattr(sys, name, stream)


def _parser() -> argparse.ArgumentParser:
    public = [name for name, field in Config.model_fields.items() if field.repr]
    settings = _settings(*public)  # everybody on this machine can read options
    parser = argparse.ArgumentParser(
        prog="predictor",
        description=f"{_SERVE}. With a command other than serve: call an API.",
        epilog="Every option is an environment variable, too; secrets are only that. .env is read.",
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=28),
        parents=[settings],
    )
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    text = "the same as no command"
    commands.add_parser("serve", parents=[settings], help=text, description=f"{_SERVE}.")
    text = "check settings, store, model and machine, and say what to do about each"
    doctor = commands.add_parser("doctor", parents=[settings], help=text, description=text)
    doctor.add_argument("--json", action="store_true", help="print one JSON object")
    shared = _settings("url")
    shared.add_argument("--json", action="store_true", help="print the response as JSON")

    def add(name: str, text: str) -> argparse.ArgumentParser:
        options: dict[str, Any] = {"parents": [shared], "epilog": _EXIT}
        return commands.add_parser(name, help=text, description=text, **options)

    _add_predict(add("predict", "request one prediction, or many"))
    status = add("status", "show the status of a prediction")
    status.add_argument("id")
    _add_wait(status, "wait until it has ended, and print the result")
    add("cancel", "cancel a prediction").add_argument("id")
    top = add("top", "show what the service does: live at a terminal, else a line each interval")
    text = "seconds from one look to the next [default 2]"
    top.add_argument("--interval", type=_positive, default=2, metavar="SECONDS", help=text)
    return parser


def _settings(*names: str) -> argparse.ArgumentParser:
    """A parent parser with options for these settings."""
    parser = argparse.ArgumentParser(add_help=False)
    for name in names:
        field, option = Config.model_fields[name], "--" + name.replace("_", "-")
        default = str("" if field.default is None else field.default) or "unset"
        text = f"{field.description} [{PREFIX}{name.upper()}, default {default}]".replace("%", "%%")
        parser.add_argument(option, default=argparse.SUPPRESS, metavar="VALUE", help=text)
    return parser


def _add_predict(predict: argparse.ArgumentParser) -> None:
    add = predict.add_argument
    add("text", nargs="?", help="the input of the model; -: all of standard input")
    add("--input-json", action="store_true", help='the text is JSON, such as {"a": 1}')
    text = "print its id as soon as it is accepted, without --wait"
    add("--async", dest="is_async", action="store_true", help=text)
    modes = predict.add_mutually_exclusive_group()
    _add_wait(modes, "run it asynchronously, and show its progress")
    modes.add_argument("--jsonl", metavar="FILE", help=_JSONL)
    add("--output", metavar="FILE", help=_OUTPUT)
    text = "concurrent lines of --jsonl [default 8]"
    add("--concurrency", dest="at_once", type=_positive, default=8, metavar="N", help=text)


def _add_wait(parser: "argparse._ActionsContainer", text: str) -> None:
    add, text = parser.add_argument, f"{text}; SECONDS limits the wait, not the prediction"
    add("--wait", nargs="?", type=_positive, const=math.inf, metavar="SECONDS", help=text)


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (number := float(text)) < math.inf:
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is no number above 0; a text or an id goes first")


if __name__ == "__main__":
    sys.exit(main())
