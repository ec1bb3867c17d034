"""What the middleware rejects: a wrong key, too many requests, long bodies."""

import asyncio

import httpx
import pytest
from pydantic import SecretStr

from movierec.serving.api import create_app
from movierec.serving.feedback import LiveService
from movierec.serving.middleware import TokenBuckets


@pytest.fixture(scope="module")
def live(service, tmp_path_factory):
    return LiveService(service, tmp_path_factory.mktemp("middleware") / "ui_feedback.jsonl")


@pytest.fixture
def ask(live, settings):
    """A function that sends requests to an application with these settings, without a server."""
    apps = {}

    def send(method, path, limits, **options):
        name = str(limits)
        if name not in apps:
            changed = settings.service.model_copy(update=limits)
            apps[name] = create_app(settings.model_copy(update={"service": changed}))
            apps[name].state.manager.live = live

        async def request():
            transport = httpx.ASGITransport(apps[name])
            async with httpx.AsyncClient(transport=transport, base_url="http://api") as client:
                return await client.request(method, path, **options)

        return asyncio.run(request())

    return send


def test_a_key(ask):
    limits = {"api_key": SecretStr("correct horse")}
    assert "X-API-Key" in ask("GET", "/movies/1", limits).json()["detail"]
    for key in (b"correct hors", "ü".encode(), b""):
        assert ask("GET", "/movies/1", limits, headers={b"X-API-Key": key}).status_code == 401
    assert ask("GET", "/movies/1", limits, headers={"X-API-Key": "correct horse"}).status_code == 200
    assert ask("GET", "/health", limits).status_code == 200, "a load balancer needs no key"


def test_a_rate(ask):
    answers = [ask("GET", "/movies/1", {"rate": 0.5}) for _ in range(6)]  # a bucket for a single token
    rejected = [answer for answer in answers if answer.status_code == 429]
    assert answers[0].status_code == 200 and rejected and "more than 0.5 requests" in rejected[0].json()["detail"]
    assert int(rejected[0].headers["retry-after"]) >= 1


def test_a_length(ask):
    async def piecewise():
        for _ in range(20):
            yield b" " * 100

    limits = {"max_body": 1_024}
    announced = ask("POST", "/recommend", limits, content=b" " * 1_025)
    unannounced = ask("POST", "/recommend", limits, content=piecewise())
    for answer in (announced, unannounced):
        assert answer.status_code == 413 and "1,024 bytes" in answer.json()["detail"]
    assert ask("POST", "/recommend", limits, json={"history": []}).status_code == 200


def test_buckets_forget_the_oldest_address():
    buckets = TokenBuckets(1, 2, max_addresses=3)
    for address in "abcd":
        assert [buckets.take(address, 0.0) for _ in range(3)] == [0.0, 0.0, 1.0]
    assert len(buckets) == 3 and buckets.take("a", 0.0) == 0.0
