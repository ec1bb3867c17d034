"""The widget without a browser."""

import json

import pytest

from movierec.app.page import Page, api_url
from movierec.app.session import Session
from movierec.config import load_settings


def test_the_address_of_the_api():
    assert api_url(load_settings()) == "http://127.0.0.1:8000"
    assert api_url(load_settings(service={"host": "::", "port": 9})) == "http://[::1]:9"
    assert api_url(load_settings(app={"api_url": "https://movies.example/"})) == "https://movies.example"


@pytest.fixture
def page(api):
    page = Page(Session(api.client()))
    page.sent = []
    page.send = lambda content, buffers=None: page.sent.append(content)
    return page


def test_a_message_runs_an_action_and_is_answered(page):
    item = page.rows[0]["items"][1]["item_idx"]
    arguments = {"item": item, "action": "like"}
    page.handle_message(page, {"action": "give_feedback", "arguments": arguments, "number": 4}, [])
    assert page.rows[0]["items"][0]["item_idx"] == item + 5 and page.feedback["likes"][0]["item_idx"] == item
    assert page.sent == [{"done": 4}]


@pytest.mark.parametrize("message", [
    {}, {"action": "__init__"}, {"action": "reset_viewer", "arguments": {"user": 3}},
    {"action": "choose_user", "arguments": {"unknown": 1}}, {"action": "set_options", "arguments": {"volume": 11}},
    {"action": "become_new_user", "arguments": {"picked": [{}]}},
    {"action": "become_new_user", "arguments": {"hates": [3]}},
    {"action": "become_new_user", "arguments": {"likes": ["x"]}},
], ids=str)
def test_unusable_messages_are_answered_and_break_nothing(page, message):
    user = page.viewer["user"]
    page.handle_message(page, message | {"number": 5}, [])
    assert page.sent == [{"done": 5}] and page.viewer["user"] == user and json.dumps(page.session.state())
