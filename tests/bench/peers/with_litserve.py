"""LitServe: `python -m tests.bench.peers.with_litserve PORT`."""

import sys
from typing import Any

import litserve

from tests.bench.peers.work import Input, Output


class Echo(litserve.LitAPI):
    def setup(self, device: str) -> None:
        pass

    def decode_request(self, request: Input) -> str:
        return request.input

    def predict(self, x: str) -> str:
        return x

    def encode_response(self, output: str) -> Any:
        return Output(input=output, result=output)


if __name__ == "__main__":
    server = litserve.LitServer(Echo(), accelerator="cpu")
    server.run(port=int(sys.argv[1]), log_level="warning", generate_client_file=False)
