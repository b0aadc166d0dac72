"""Two floors of sync predictions: a route of FastAPI with models, and a route of Starlette."""

from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.bench.peers.work import Input, Output, predict

with_fastapi = FastAPI()


@with_fastapi.post("/predict")
async def _with_models(body: Input) -> Output:
    return Output(input=body.input, result=await predict(body.input))


async def _route(request: Request) -> Response:
    body = Input.model_validate_json(await request.body())
    output = Output(input=body.input, result=await predict(body.input))
    return Response(output.model_dump_json(), media_type="application/json")


with_starlette = Starlette(routes=[Route("/predict", _route, methods=["POST"])])
