"""The API client: which errors a failure becomes, what is repeated, and what is cached."""

import json
from itertools import count

import httpx
import pytest

from movierec.app.client import ApiClient, ApiError, ApiUnavailable


def client_answering(handler, **options):
    return ApiClient("http://api/", transport=httpx.MockTransport(handler), **options)


@pytest.mark.parametrize(("answer", "kind", "text"), [
    (httpx.ConnectError("x"), ApiUnavailable, "nothing answers at http://api"),
    (httpx.ReadTimeout("x"), ApiUnavailable, "hasn't answered within 5 seconds"),
    (httpx.RemoteProtocolError("x"), ApiUnavailable, "closed the connection"),
    (httpx.Response(200, text="<html>"), ApiUnavailable, "is not movierec's API"),
    (httpx.Response(503, json={"detail": "not ready: it is starting"}), ApiUnavailable, "not ready"),
    (httpx.Response(429, json={"detail": "slow down"}), ApiUnavailable, "slow down"),
    (httpx.Response(404, json={"detail": "there is no user_idx 9"}), ApiError, "there is no user_idx 9"),
    (httpx.Response(401, json=[1]), ApiError, "answered 401"),
])
def test_every_failure_is_one_sentence(answer, kind, text):
    def handler(request):
        if isinstance(answer, Exception):
            raise answer
        return answer

    with pytest.raises(ApiError, match=text) as caught:
        client_answering(handler).history(9)
    assert type(caught.value) is kind and "\n" not in str(caught.value)


def test_a_closed_connection_is_tried_once_more():
    calls = count()

    def handler(request):
        if next(calls) == 0:
            raise httpx.RemoteProtocolError("closed")
        return httpx.Response(200, json=[])

    assert client_answering(handler).history(1) == [] and next(calls) == 2


def test_repeated_feedback_keeps_its_idempotency_key():
    keys = []

    def handler(request):
        keys.append(json.loads(request.content)["idempotency_key"])
        if len(keys) == 1:
            raise httpx.ReadError("gone")
        return httpx.Response(200, json={"new": False, "feedback": {}})

    client = client_answering(handler)
    client.send_feedback(1, 2, "like")
    client.send_feedback(1, 2, "like")
    assert keys[0] == keys[1] != keys[2]


def test_another_model_empties_the_cache(api):
    client = api.client()
    client.about()
    client.history(3)
    client.history(3)
    assert len(api.requests_to("/users/3/history")) == 1
    for number in range(300):
        client.search(f"movie {number}")
    assert len(client._cache) == 200
    client._cache.use_model("m0")
    client.about()
    assert len(client._cache) == 0


def test_the_api_key_is_sent():
    client = client_answering(lambda request: httpx.Response(200, json=[request.headers.get("X-API-Key")]), key="a key")
    assert client.history(1) == ["a key"]


def test_the_attribution_of_posters(api):
    assert api.client().posters()["attribution"]["text"] == "By TMDB."
    api.rejection = (404, "there is nothing at this address")
    assert api.client().posters() == {"attribution": None}
    api.is_down = True
    with pytest.raises(ApiUnavailable):
        api.client().posters()
