"""The least that a store's user must be allowed; README's line is what is tried.

All tests by this user: pytest --least-rights
"""

import re
from typing import Any

from predictor.store.inspection import _COMMANDS
from tests import rights
from tests.faults.conftest import Farm
from tests.processes import UNMEASURED, eventually
from tests.webhooks.test_deliverer import SETTINGS, Receiver


def test_the_user_that_readme_shows_can_do_all_that_is_done(farm: Farm) -> None:
    client: Any = farm.store.client
    rights.grant(client)
    client.execute_command("ACL", "LOG", "RESET")
    settings = {"redis_url": rights.as_user(farm.store.url)}
    receiver = Receiver()
    try:
        farm._api = farm.processes.api(**SETTINGS | settings)
        farm.processes.start(
            "python", "-m", "predictor.webhooks", **SETTINGS | settings | UNMEASURED
        )
        worker = farm.worker(**settings)
        ids = [
            farm.api.submit("0.2", Webhook_Url=receiver.url, Idempotency_Key="k"),
            farm.api.submit("0"),
        ]
        assert farm.api.read(ids[0], wait=5).status_code == 200
        assert farm.outcomes(ids) == [200, 200]
        running = farm.api.submit("30")
        farm.until_running(1)
        assert farm.api.client.post(f"/predict/{running}/cancel").status_code == 202
        assert farm.outcomes([running]) == [410]
        assert farm.api.client.get("/health/ready").status_code == 200
        assert "completed" in farm.api.client.get(f"/predict/{ids[1]}/events").text
        eventually(lambda: receiver.told, "the webhook")
        assert farm.api.client.delete(f"/predict/{ids[1]}").status_code == 204
        assert worker.stop() == 0
    finally:
        receiver.close()
    assert client.execute_command("ACL", "LOG") == []
    probed = set(re.findall(r"(?:^|[|\n])([A-Z]+)", _COMMANDS))
    sent = {name.removeprefix("cmdstat_").upper() for name in client.info("commandstats")}
    of_others = {"ACL|SETUSER", "ACL|LOG", "CLIENT|SETINFO", "AUTH", "PING", "HELLO", "CONFIG|GET"}
    assert {name.partition("|")[0] for name in sent - of_others} <= probed, "the doctor tries all"


def test_what_a_user_lacks_is_said(farm: Farm) -> None:
    """Without the channels waiters look now and then; the log says why."""
    client: Any = farm.store.client
    client.execute_command(
        "ACL", "SETUSER", "narrow", "on", ">secret", "~*", "+@all", "resetchannels"
    )
    url = farm.store.url.replace("unix://", "unix://narrow:secret@")
    api = farm.processes.api(redis_url=url)
    id_ = api.submit("x")
    assert api.read(id_, wait=1).status_code == 202
    assert api.process.output.count("the store refuses its channels (NoPermissionError") == 1
