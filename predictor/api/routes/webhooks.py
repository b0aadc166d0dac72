"""The routes of a prediction's webhook."""

from fastapi import APIRouter, Response

from predictor.api.dependencies import PathId, Store
from predictor.api.headers import NO_STORE
from predictor.api.openapi import described, raises
from predictor.api.schemas import PredictionRedelivery, PredictionWebhook
from predictor.errors import NoWebhook, StillActive, StoreUnavailable, UnknownPrediction
from predictor.prediction import Webhook

router = APIRouter(
    prefix="/predict/{prediction_id}/webhook",
    tags=["predictions"],
    responses=raises(NoWebhook, UnknownPrediction, StoreUnavailable),
)


@router.get(
    "",
    response_model=PredictionWebhook,
    responses={200: described("The webhook, and its attempts.", NO_STORE)},
)
async def read_webhook(id_: PathId, store: Store, response: Response) -> Webhook:
    """The attempts to deliver the webhook of a prediction, and the responses to them."""
    webhook = await store.webhook(id_)
    if webhook is None:
        raise NoWebhook
    response.headers.update(NO_STORE("no-store"))
    return webhook


@router.post(
    "",
    status_code=202,
    response_description="It is sent again.",
    responses=raises(StillActive),
)
async def send_webhook_again(id_: PathId, store: Store) -> PredictionRedelivery:
    """Send the webhook of a prediction that has ended once more, delivered or not."""
    if not await store.redeliver(id_):
        raise NoWebhook
    return PredictionRedelivery(prediction_id=id_)
