"""The store behind TLS: every client checks who it is, by its authority and its name."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from predictor.store.connection import blocking_client
from tests.faults.conftest import Farm
from tests.faults.surroundings import Certificates, Tls, Unavailable
from tests.faults.test_doctor import doctor
from tests.processes import UNMEASURED, eventually
from tests.webhooks.test_deliverer import SETTINGS, Receiver


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    try:
        return Certificates(tmp_path_factory.mktemp("tls"), "localhost", "elsewhere")
    except Unavailable as error:
        pytest.skip(str(error))


@pytest.fixture
def tls(farm: Farm, certificates: Certificates) -> Iterator[Tls]:
    with Tls(farm.store.url, certificates.folder / "localhost.pem") as server:
        yield server


def test_all_of_it_works_behind_tls(
    farm: Farm, tls: Tls, certificates: Certificates, tmp_path: Path
) -> None:
    url = f"rediss://localhost:{tls.port}?ssl_ca_certs={certificates.authority}"
    settings = SETTINGS | {"redis_url": url}
    receiver = Receiver()
    try:
        api = farm._api = farm.processes.api(**settings)
        farm.processes.start("python", "-m", "predictor.webhooks", **settings | UNMEASURED)
        worker = farm.worker(redis_url=url, lease=0.5)
        assert api.client.get("/health/ready").status_code == 200
        id_ = api.submit("0.8", Webhook_Url=receiver.url)  # longer than a lease, which is renewed
        assert api.read(id_, wait=5).status_code == 200
        assert api.status(id_)["tries"] == 1
        eventually(lambda: receiver.told, "the webhook")
    finally:
        receiver.close()
    _, checks = doctor(tmp_path, redis_url=url)
    assert [checks[name]["status"] for name in ("connection", "store", "rights")] == ["ok"] * 3
    assert worker.stop() == 0


def test_a_certificate_that_is_not_checked(farm: Farm, tls: Tls) -> None:
    url = f"rediss://127.0.0.1:{tls.port}?ssl_cert_reqs=none"
    api = farm.processes.api(redis_url=url)
    assert api.client.get("/health/ready").status_code == 200
    assert blocking_client(url, socket_timeout=1).ping()


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("rediss://127.0.0.1:{port}?ssl_ca_certs={authority}", "IP address mismatch"),
        ("rediss://localhost:{port}", "unable to get local issuer certificate"),
    ],
)
def test_a_store_that_is_another(
    url: str, why: str, *, farm: Farm, tls: Tls, certificates: Certificates, tmp_path: Path
) -> None:
    url = url.format(port=tls.port, authority=certificates.authority)
    api = farm.processes.api(redis_url=url)
    assert api.client.get("/health/ready").status_code == 503
    worker = farm.processes.start_worker(redis_url=url, **UNMEASURED)
    reason = f"its certificate is not accepted: {why}"
    eventually(lambda: f"unavailable ({reason}" in worker.output, "a line in the log")
    assert reason in api.process.output
    client = blocking_client(url, socket_timeout=1)  # as the heartbeat has it
    with client, pytest.raises(redis.ConnectionError):
        client.ping()
    status, checks = doctor(tmp_path, redis_url=url)
    assert status == 1
    assert reason in checks["store"]["found"]
    assert not farm.store.client.keys()


def test_the_name_is_not_checked_if_the_url_says_so(tls: Tls, certificates: Certificates) -> None:
    where = f"rediss://127.0.0.1:{tls.port}?ssl_ca_certs={certificates.authority}"
    with blocking_client(f"{where}&ssl_check_hostname=no") as client:
        assert client.ping()
