"""What an api process counts by itself reaches the store once, whatever befalls the store."""

from pathlib import Path

from tests.faults.conftest import Farm
from tests.faults.surroundings import Link
from tests.processes import eventually
from tests.test_metrics import ended


def test_sync_predictions_are_counted_once_though_replies_are_lost(
    farm: Farm, tmp_path: Path
) -> None:
    def counted() -> int:
        return ended(farm.api, "sync")["succeeded"]

    with Link(farm.store.url, tmp_path / "link") as link:
        api = farm.processes.api(mock_delay=0, redis_url=link.url)
        assert api.predict("x").status_code == 200
        eventually(lambda: counted() == 1, "the first")
        link.stall(there=False)  # what is told arrives, its confirmation does not
        assert api.predict("x").status_code == 200
        eventually(lambda: counted() == 2, "the second")
        farm.store.kill()
        assert api.predict("x").status_code == 200
        eventually(lambda: "unavailable" in api.process.output, "an outage")
        link.cut()
        link.resume()
        farm.store.start()
        eventually(lambda: api.client.get("/health/ready").status_code == 200, "the store is back")
        assert api.predict("x").status_code == 200
        api.process.stop()  # which tells the rest
        assert counted() == 4
