"""What is there to ask, and how connections behave."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import httpx
import pytest

from ocr_pipeline_tests.vllm_contract.asking import MODEL, PATH, body, read_status
from ocr_pipeline_tests.vllm_contract.servers import ServerUnderTest


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_a_healthy_server_answers_200_and_nothing_else(http: httpx.Client, path: str) -> None:
    answer = http.get(path)
    assert (answer.status_code, answer.content) == (200, b"")


def test_the_version_is_told(http: httpx.Client) -> None:
    assert http.get("/version").json() == {"version": "0.32.0"}


def test_the_load_is_always_0_unless_the_server_tracks_it(http: httpx.Client) -> None:
    assert http.get("/load").json() == {"server_load": 0}


def test_the_models_list_names_the_served_model_and_its_context(http: httpx.Client) -> None:
    listing = http.get("/v1/models").json()
    assert listing["object"] == "list"
    [model] = listing["data"]
    assert (model["id"], model["max_model_len"], model["owned_by"]) == (MODEL, 8192, "vllm")


def test_an_unknown_path_is_404_with_a_body_that_is_no_error_object(http: httpx.Client) -> None:
    answer = http.get("/nope")
    assert (answer.status_code, answer.json()) == (404, {"detail": "Not Found"})


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", PATH, "POST"), ("POST", "/health", "GET")])
def test_the_wrong_method_is_405(http: httpx.Client, method: str, path: str, allowed: str) -> None:
    answer = http.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    assert answer.json() == {"detail": "Method Not Allowed"}


def test_what_is_not_http_is_400(server: ServerUnderTest) -> None:
    with _connected(server) as connection:
        connection.sendall(b"hello there\r\n\r\n")
        assert connection.recv(4096).startswith(b"HTTP/1.1 400 ")


def test_an_idle_connection_is_kept_and_then_closed_by_the_server(server: ServerUnderTest) -> None:
    """After 5 s (uvicorn's default): a client must count on a reset when it uses a connection again."""
    with _connected(server) as connection:
        for _ in range(2):  # the second request on the same connection: it was kept
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert read_status(connection) == 200
        connection.settimeout(20)
        assert connection.recv(4096) == b""


def test_a_client_that_asks_for_it_gets_its_connection_closed(server: ServerUnderTest) -> None:
    with _connected(server) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = b""
        while data := connection.recv(4096):
            received += data
        assert received.startswith(b"HTTP/1.1 200 OK")


def test_a_body_in_chunks_is_read(http: httpx.Client) -> None:
    whole = httpx.Request("POST", "http://localhost", json=body(max_tokens=1)).content
    chunks = iter([whole[:100], whole[100:]])
    answer = http.post(PATH, content=chunks, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200


def _connected(server: ServerUnderTest) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname is not None
    return socket.create_connection((address.hostname, address.port or 80), timeout=10)
