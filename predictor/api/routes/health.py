"""The routes for probes."""

from fastapi import APIRouter

from predictor.api.dependencies import Store
from predictor.api.openapi import raises
from predictor.api.schemas import Health
from predictor.errors import StoreUnavailable

router = APIRouter(prefix="/health", tags=["health"])


@router.head("/live", include_in_schema=False)
@router.get("/live")
async def live() -> Health:
    """Whether this process serves, whatever the store does: restart it if not."""
    return Health(status="live")


@router.head("/ready", include_in_schema=False)
@router.get("/ready", responses=raises(StoreUnavailable))
async def ready(store: Store) -> Health:
    """Whether both kinds of prediction can be made: model loaded, store writable."""
    await store.check()
    return Health(status="ready")
