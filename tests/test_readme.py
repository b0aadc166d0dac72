"""README.md is true: its commands and snippets run, and its tables name what there is."""

import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Self

import httpx
import pytest
import yaml

from predictor.config import Config
from predictor.store.url import check_url
from tests.command import running
from tests.contract import contract
from tests.processes import BIN, ROOT, UNMEASURED, Processes, eventually, free_port
from tests.webhooks.test_deliverer import Receiver

#: Blocks that are not run, by how they begin, and why.
NOT_RUN = {
    "uv init": "`uv add` needs a package registry",
    "uv run --with": "installs packages; tests/test_real_models.py serves the same models",
    "export PREDICTOR_REDIS_URL=redis://localhost:6379 PREDICTOR_MODEL": "needs GPUs",
    "uv run --group bench": "takes ten minutes; test_bench.py runs what needs no peers",
    "export OTEL_": "needs a collector; tests/test_traces.py has one",
    "docker compose": "needs a container engine; checked below",
    "docker build": "needs a container engine; checked below",
    "FROM": "needs a container engine; checked below",
    "const events": "needs a browser; the names of its events and fields are checked below",
    "apiVersion": "needs a cluster; tests/test_deploy.py checks all of it",
    "# predictor-": "needs systemd; tests/test_deploy.py checks the units, and runs their commands",
    "ACL SETUSER": "tests/faults/test_rights.py runs everything as this user",
}

README = (ROOT / "README.md").read_text()


class Block(NamedTuple):
    """A fenced block."""

    section: str
    language: str
    text: str


def _blocks() -> Iterator[Block]:
    section, fenced = (
        "",
        re.compile(r"^```(\w*)\n(.*?)^```$|^#+ ([^\n]*)$", re.MULTILINE | re.DOTALL),
    )
    for language, text, heading in fenced.findall(README):
        if heading:
            section = heading
        else:
            yield Block(section, language, text)


BLOCKS = list(_blocks())


def _module(block: Block) -> str | None:
    """The name of the file that a block of Python is to be saved as."""
    name = re.match(r"# (\w+\.py)\n", block.text)
    return name and name[1]


def _commands(block: Block) -> list[str]:
    """The commands of a shell block: a line each, or more with a backslash at their end."""
    return block.text.replace("\\\n", " ").splitlines()


class Shell:
    """A shell in which commands are run one by one, and servers in the background."""

    def __init__(self, folder: Path, **settings: object) -> None:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith("PREDICTOR_")}
        environment = inherited | UNMEASURED | {"PATH": f"{BIN}:{os.environ['PATH']}"}
        environment |= {f"PREDICTOR_{k.upper()}": str(v) for k, v in settings.items()}
        self.log = folder / "shell.log"
        self._folder = folder / "shell"
        self._folder.mkdir()
        with self.log.open("w") as log:
            self._bash = subprocess.Popen(
                ["bash"],
                cwd=self._folder,
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.run("kill $(jobs -p) || true")
        self._bash.communicate(timeout=5)
        try:
            eventually(lambda: not running(self._folder), "an end of all processes", 10)
        except AssertionError:
            os.killpg(self._bash.pid, signal.SIGKILL)
            raise

    def run(self, command: str) -> str:
        """The standard output. Fails if the exit status is not 0."""
        assert self._bash.stdin
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null; printf '\\1%d\\n' $?\n")
        self._bash.stdin.flush()
        limit = threading.Timer(30, os.killpg, [self._bash.pid, signal.SIGKILL])
        limit.start()
        output, _, status = "".join(self._lines()).partition("\1")
        limit.cancel()
        assert status == "0\n", f"{command}: {status}{output}{self.log.read_text()}"
        return output

    def _lines(self) -> Iterator[str]:
        """The lines up to the one with the exit status, or to the end of the shell."""
        assert self._bash.stdout
        for line in self._bash.stdout:
            yield line
            if "\1" in line:
                return

    def start(self, command: str, says: str) -> None:
        """Start a server; return when its log says this."""
        before = len(self.log.read_text())
        self.run(f"{command} >&2 &")
        said = lambda: says in self.log.read_text()[before:]  # noqa: E731
        eventually(said, f"{says!r}, of {command}", 30)


class Reader:
    """Does what a section says, in its order."""

    #: Commands that go on until they are stopped, and what they log when they are ready.
    SERVERS: ClassVar = {
        r"predictor( --model \S+)?$": "Predictor serves",
        r"uvicorn ": "Uvicorn running",
        r"arq predictor.worker.Settings$|watchfiles ": "worker ready",
        r"python -m predictor.webhooks": "no webhooks are delivered",
    }

    def __init__(self, shell: Shell, replaced: dict[str, str]) -> None:
        """`replaced`: what stands in README, and what is used instead."""
        self._shell = shell
        self._replaced = {"pip install uv && ": "", "uv run ": ""} | replaced
        self._last = ""

    def follow(self, section: str) -> None:
        blocks = [b for b in BLOCKS if b.section == section and not _reason(b)]
        assert blocks
        for block in blocks:
            self.read(block)

    def read(self, block: Block) -> None:
        """Save a module, run commands, or compare the last output with what is shown."""
        if block.language == "python":
            name = _module(block)
            assert name
            self._shell.run(f"cat > {name} <<'END'\n{block.text}\nEND")
        elif block.language == "sh":
            for command in _commands(block):
                self.do(command)
        else:
            self._expect(block.text)

    def _replace(self, text: str) -> str:
        for shown, used in self._replaced.items():
            text = text.replace(shown, used)
        return text

    def do(self, command: str) -> None:
        """Run a command, or start it if it is a server."""
        command = self._replace(command.partition("  #")[0].rstrip())
        says = next((says for start, says in self.SERVERS.items() if re.match(start, command)), "")
        if says:
            self._shell.start(command, says)
        else:
            self._last, self.output = command, self._shell.run(command)

    def _expect(self, text: str) -> None:
        """The last command prints this, at once or when it is repeated."""
        shown = json.loads(self._replace(text))
        deadline = time.monotonic() + 10
        while not same_shape(shown, json.loads(self.output)):
            assert time.monotonic() < deadline, f"{self._last} prints {self.output}, not {text}"
            assert self._last.startswith("curl -s http"), f"not {text}: {self.output}"
            self.output = self._shell.run(self._last)
        if id_ := re.search("[0-9a-f]{32}", text):
            seen = re.search("[0-9a-f]{32}", self.output)
            assert seen
            self._replaced[id_[0]] = seen[0]


def same_shape(shown: Any, seen: Any) -> bool:
    """Whether the keys, the types and the texts are the same, but for numbers, times and ids."""
    if isinstance(shown, dict):
        return (
            isinstance(seen, dict)
            and list(shown) == list(seen)
            and all(same_shape(shown[key], seen[key]) for key in shown)
        )
    if isinstance(shown, str):
        varies = re.compile(r"[0-9a-f]{32}|\d+")
        return isinstance(seen, str) and varies.sub("0", shown) == varies.sub("0", seen)
    return type(shown) is type(seen) and (type(shown) in {int, float} or bool(shown == seen))


def _reason(block: Block) -> str | None:
    """Why a block is not run."""
    return next((why for start, why in NOT_RUN.items() if block.text.startswith(start)), None)


def _quickstart(folder: Path, _: Processes) -> None:
    """With webhooks, which start in the same way: a start takes seconds."""
    start, body, verify = [block for block in BLOCKS if block.section == "Webhooks"]
    make, serve = _commands(start)
    port, receiver = str(free_port()), Receiver()
    try:
        # Long enough for the first response, that it has not ended.
        with Shell(folder, port=port, mock_delay=1.5, webhook_allow="127.0.0.1") as shell:
            shell.run(make)
            secret = shell.run("echo $PREDICTOR_WEBHOOK_SECRETS").strip()
            reader = Reader(shell, {"8080": port})
            reader.follow("Run it")
            assert any(b.text.endswith(serve + "\n") for b in BLOCKS if b.section == "Run it")
            url = f"http://127.0.0.1:{port}/predict"
            headers = {"Async-Mode": "true", "Webhook-Url": receiver.url}
            assert httpx.post(url, json={"input": "x"}, headers=headers).status_code == 202
            reader.follow("Call it")
            eventually(lambda: receiver.told, "the webhook")
    finally:
        receiver.close()
    headers, sent = receiver.told[0]
    assert same_shape(json.loads(body.text), json.loads(sent))
    names: dict[str, Any] = {"body": sent, "headers": headers}
    exec(verify.text.replace("whsec_…", secret), names)
    assert names["message"] == json.loads(sent)


class _Apis(Reader):
    """Serves each model with an api that is forked: a whole `predictor` takes seconds to start."""

    def __init__(self, shell: Shell, folder: Path, processes: Processes) -> None:
        super().__init__(shell, {"8080": ""})
        self._path, self._processes = f"{ROOT}:{folder / 'shell'}", processes

    def do(self, command: str) -> None:
        if served := re.match(r"uv run (?:--with \S+ )*predictor --model (\S+)$", command):
            api = self._processes.api(model=served[1], PYTHONPATH=self._path)
            self._replaced["8080"] = str(api.port)
            is_ready = lambda: api.client.get("/health/ready").status_code == 200  # noqa: E731
            eventually(is_ready, f"an api with {served[1]}")
        else:
            super().do(command)


def _own_model(folder: Path, processes: Processes) -> None:
    with Shell(folder) as shell:
        _Apis(shell, folder, processes).follow("From a function to GPUs")


def _models_to_try(folder: Path, processes: Processes) -> None:
    """They are those that tests/test_real_models.py serves; the first one is sent a file."""
    shown = {_module(b): b.text.partition("\n")[2] for b in BLOCKS if b.language == "python"}
    real = {path.name: path.read_text() for path in (ROOT / "tests/models/real").glob("[!_]*.py")}
    assert {name: shown.get(name) for name in real} == real
    if find_spec("magika"):
        with Shell(folder) as shell:
            reader = _Apis(shell, folder, processes)
            for block in [b for b in BLOCKS if b.section == "Models to try"][:3]:
                reader.read(block)


def _how_it_runs(folder: Path, processes: Processes) -> None:
    with Shell(folder) as shell:
        reader = _Apis(shell, folder, processes)
        reader.follow("How a model runs")
        assert '"result":"word 0 word 1 word 2 "' in reader.output
    _run(folder, processes)


def _run(folder: Path, processes: Processes) -> None:
    (block,) = [b for b in BLOCKS if b.text.startswith("# my_pages.py")]
    (folder / "my_pages.py").write_text(block.text)
    settings = {"model": "my_pages:predict", "PYTHONPATH": f"{ROOT}:{folder}"}
    api = processes.api(**settings)
    processes.worker(**settings)
    events = api.client.get(f"/predict/{api.submit('a')}/events").text
    assert 'event: output\ndata: "A"' in events
    assert '"result":["A"]' in events
    (script,) = [b for b in BLOCKS if b.language == "js"]
    for name in re.findall(r'addEventListener\("(\w+)"', script.text):
        assert f"event: {name}\n" in events
    (field,) = re.findall(r"JSON\.parse\(event\.data\)\.(\w+)", script.text)
    assert f'event: progress\ndata: {{"{field}":1.0' in events


def _waiting(folder: Path, processes: Processes) -> None:
    api = processes.api(mock_delay=0.2)
    processes.worker(mock_delay=0.2)
    with Shell(folder) as shell:
        Reader(shell, {"8080": str(api.port)}).follow("Wait for a result, or follow it")


def _python_client(folder: Path, processes: Processes) -> None:
    """The api is killed, and started again, while the program waits."""
    (block,) = [block for block in BLOCKS if block.section == "Python client"]
    assert len(block.text.splitlines()) == 5
    model = "from pathlib import Path\nfrom time import sleep\n\ndef predict(text: str) -> str:\n"
    model += "    Path('started').touch()\n    sleep(1)\n    return text.upper()\n"
    (folder / "shouts.py").write_text(model)
    settings = {"model": "shouts:predict", "PYTHONPATH": f"{ROOT}:{folder}"}
    api = processes.api(**settings)
    processes.worker(**settings)
    (folder / "program.py").write_text(block.text.replace("8080", str(api.port)))
    program = processes.start("python", "-m", "program", **settings)
    eventually((folder / "started").exists, "a run")
    api.process.signal(signal.SIGKILL)
    api.process.wait()
    processes.start_api(api.port, **settings)
    assert program.wait() == 0
    assert program.output.endswith("SAMPLE INPUT DATA FOR THE MODEL\n")


def _command_line(folder: Path, processes: Processes) -> None:
    api = processes.api(mock_delay=0.1)
    worker = processes.worker(mock_delay=0.1)
    (block,) = [block for block in BLOCKS if block.section == "Command line"]
    *commands, cancel = _commands(block)
    with Shell(folder, url=f"http://127.0.0.1:{api.port}") as shell:
        shell.run("""echo text > letter.txt; printf '{"input": "a"}\\n"b"\\n' > inputs.jsonl""")
        reader = Reader(shell, {})
        for command in commands:
            reader.do(command)
        worker.stop()
        shell.run(f"id={api.submit('x')}")
        reader.do(cancel)
        lines = [json.loads(line) for line in shell.run("cat results.jsonl").splitlines()]
    assert [line["input"] for line in lines] == ["a", "b"]
    assert all(list(line) == ["input", "result"] for line in lines)


def _by_hand(folder: Path, processes: Processes) -> None:
    port, store = str(free_port()), shlex.quote(str(processes._redis_url))
    check = "arq predictor.worker.Settings --check"  # succeeds a moment after it is ready
    replaced = {
        "8080": port,
        "redis://localhost:6379": store,
        check: f"timeout 20 bash -c 'until {check}; do sleep 0.1; done'",
        "FOLDER": ".",
    }
    with Shell(folder, mock_delay=0) as shell:
        Reader(shell, replaced).follow("Processes")
        url, headers = f"http://127.0.0.1:{port}/predict", {"Prefer": "wait=10"}
        assert httpx.post(url, json={"input": "x"}, headers=headers).status_code == 200


def _keys(folder: Path, _: Processes) -> None:
    port = free_port()
    with Shell(folder, port=port, mock_delay=0) as shell:
        reader = Reader(shell, {"8080": str(port)})
        for section in ("Quotas", "Browsers", "Keys"):
            reader.follow(section)
        assert re.fullmatch(r"\d+\n", reader.output), "what the client prints"
        answer = httpx.get(f"http://127.0.0.1:{port}/docs", headers={"Host": "127.0.0.1"})
        assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def _alerts(_: Path, processes: Processes) -> None:
    """Each metric that an alert or a scaler names is there, and its labels are."""
    text = README.partition("### Metrics")[2].partition("```yaml\n")[2].partition("```")[0]
    expressions = [rule["expr"] for rule in yaml.safe_load(text)["groups"][0]["rules"]]
    expressions += re.findall(r"query: (.*predictor_.*)", README)
    assert len(expressions) > 5
    found = processes.api().client.get("/metrics").text
    for expression in expressions:
        names = re.findall(r"(predictor_\w+)(?:\{(\w+)=)?", expression)
        assert names
        for name, label in names:
            series = rf"^{name}\b.*\b{label}=" if label else rf"^{name}\b"
            assert re.search(series, found, re.MULTILINE), expression
        assert expression.count("(") == expression.count(")")


def _logs(_: Path, processes: Processes) -> None:
    (shown,) = [block.text for block in BLOCKS if block.section == "Logs"]
    api, worker = processes.api(), processes.worker(mock_delay=0, log_format="json")
    assert api.outcome(api.submit("x")).status_code == 200
    eventually(lambda: '"outcome"' in worker.output, "the line, which follows the result")
    assert same_shape(json.loads(shown), json.loads(worker.output.splitlines()[-1]))


def _doctor(folder: Path, processes: Processes) -> None:
    api = processes.api()
    settings = {"redis_url": processes._redis_url, "url": f"http://127.0.0.1:{api.port}"}
    with Shell(folder, **settings) as shell:
        reader = Reader(shell, {})
        reader.follow("Doctor")
        assert '{"status":"ready"}' in reader.output


#: What runs the blocks of each section.
RUN: dict[str, Callable[[Path, Processes], None]] = {
    "Run it": _quickstart,
    "Call it": _quickstart,
    "From a function to GPUs": _own_model,
    "How a model runs": _how_it_runs,
    "Models to try": _models_to_try,
    "Wait for a result, or follow it": _waiting,
    "Webhooks": _quickstart,
    "Keys": _keys,
    "Quotas": _keys,
    "Browsers": _keys,
    "Python client": _python_client,
    "Command line": _command_line,
    "Processes": _by_hand,
    "Metrics": _alerts,
    "Logs": _logs,
    "Doctor": _doctor,
}


@pytest.mark.parametrize("follow", dict.fromkeys(RUN.values()))
def test_what_is_shown_works(
    follow: Callable[[Path, Processes], None], processes: Processes, tmp_path: Path
) -> None:
    follow(tmp_path, processes)


def test_every_block_is_run_or_says_why_not() -> None:
    assert {b.section for b in BLOCKS if not _reason(b)} == set(RUN)
    for start in NOT_RUN:
        assert any(b.text.startswith(start) for b in BLOCKS)


def test_the_address_of_sentinels() -> None:
    (url,) = re.findall(r"`(redis\+sentinel://\S+:26379\S*)`", README)
    check_url(url)


def test_links_lead_somewhere() -> None:
    headings = {re.sub(r"[^\w -]", "", h.lower()).replace(" ", "-") for h in _headings()}
    for target in re.findall(r"\]\(([^)]+)\)", README):
        if target.startswith("#"):
            assert target[1:] in headings
        elif not target.startswith("https://"):
            assert (ROOT / target).exists()


def _headings() -> list[str]:
    return re.findall(r"^#+ (.*)$", README, re.MULTILINE)


def _rows(section: str) -> list[list[str]]:
    """The rows of a section's first table, without its head."""
    text = README.partition(f"# {section}\n")[2].partition("\n#")[0]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [re.split(r"(?<!\\) \| ", line.strip("| ")) for line in lines[2:]]


def test_endpoints_are_those_of_the_api() -> None:
    named = set[tuple[str, str]]()
    for request, response in _rows("Endpoints"):
        named |= set(re.findall(r"`(GET|POST|DELETE) (/[\w/{}.]*)", request))
        for body in re.findall(r"`({.*?})`", response):
            assert isinstance(json.loads(body), dict)
    operations = contract().document["paths"].items()
    known = {
        (method.upper(), path.replace("{prediction_id}", "{id}"))
        for path, methods in operations
        for method in methods
    }
    assert named == known | {("GET", path) for path in ("/", "/docs", "/openapi.json")}


def test_headers_are_those_of_the_api() -> None:
    named = {row[0].strip("`").partition(":")[0] for row in _rows("Headers")}
    operations = [o for path in contract().document["paths"].values() for o in path.values()]
    taken = {p["name"] for o in operations for p in o.get("parameters", ()) if p["in"] == "header"}
    assert named == taken | {"Accept", "Authorization", "Content-Type", "X-Request-ID"}
    sent = {h for o in operations for r in o["responses"].values() for h in r.get("headers", ())}
    for name in sent - {"Cache-Control", "Connection"}:
        assert f"`{name}" in README


def test_settings_are_those_of_the_package() -> None:
    names = []
    for variable, default, _ in _rows("Settings"):
        name = variable.strip("`").removeprefix("PREDICTOR_").lower()
        field = Config.model_fields[name]
        is_set = field.default is not None and str(field.default)
        assert default == (f"`{field.default}`" if is_set else "unset")
        names.append(name)
    assert names == list(Config.model_fields)


def test_the_map_of_the_package_is_complete() -> None:
    text = README.partition("    predictor/\n")[2].partition("\n\n")[0]
    named = set(re.findall(r"(?:^ {6}| {3})(\w+(?:\.py|/))(?=  )", text, re.MULTILINE))
    there = {p.name + "/" * p.is_dir() for p in (ROOT / "predictor").iterdir()}
    assert named == there - {"__init__.py", "__pycache__/", "py.typed"}


def test_containers() -> None:
    """Names, ports, folders and commands are those of the Containerfile and of compose.yaml."""
    compose, image = (ROOT / "compose.yaml").read_text(), (ROOT / "Containerfile").read_text()
    named = [b.text for b in BLOCKS if b.section == "Containers"]
    services, run, own = named
    for service in re.findall(r"(?:--scale|logs -f) (\w+)", services):
        assert f"\n  {service}:\n" in compose
    assert "image: localhost/predictor " in compose
    assert own.startswith("FROM localhost/predictor\n")
    assert "-f Containerfile -t localhost/predictor ." in run
    for command in (c for c in run.replace("\\\n", "").splitlines() if c.startswith("docker run")):
        _, _, ran = command.partition(" localhost/predictor")
        assert f"[{', '.join(ran.split())}]" in compose or not ran
        for variable in re.findall(r"-e (\w+)=", command):
            assert variable.removeprefix("PREDICTOR_").lower() in Config.model_fields
    assert re.findall(r"-p 127\.0\.0\.1:\d+:(\d+)", run) == re.findall(r"EXPOSE (\d+)", image)
    assert re.findall(r"pip --python (\S+) install", own)[0] in image
    assert re.findall(r"USER (\d+)", own) == re.findall(r"USER (\d+)", image)


def test_the_package_has_the_name_that_is_shown() -> None:
    (name,) = re.findall(r'^name = "([^"]*)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[
        :1
    ]
    assert f"`{name}`" in README
