"""mosec: `python -m tests.bench.peers.with_mosec --port PORT`."""

from typing import Any

from mosec import Server, Worker


class Echo(Worker):
    def forward(self, data: Any) -> Any:
        return {"input": data["input"], "result": data["input"]}


if __name__ == "__main__":
    server = Server()
    server.append_worker(Echo, route="/predict")
    server.run()
