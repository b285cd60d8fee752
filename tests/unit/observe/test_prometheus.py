"""The Prometheus source against a server that answers whatever a test wants."""

from __future__ import annotations

import gzip
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from planner.observe.base import SourceError
from planner.observe.prometheus import PrometheusSource, selector
from tests.servers import free_port
from tests.unit.observe.graphs import DECODE, GATEWAY, PREFILL, supply, worker

MATRIX = {
    "resultType": "matrix",
    "result": [
        {"metric": {"__name__": "up", "instance": GATEWAY}, "values": [[1.5, "1"], [2.5, "NaN"], [3.5, "+Inf"]]},
        {"metric": {"__name__": "native", "instance": GATEWAY}, "histograms": []},
    ],
}


class Answers:
    """What the server answers, and what it was asked."""

    def __init__(self) -> None:
        self.status = 200
        self.body = json.dumps({"status": "success", "data": MATRIX}).encode()
        self.headers: dict[str, str] = {}
        self.hang = threading.Event()
        self.hangs = self.stalls = False
        self.asked: list[tuple[dict[str, list[str]], str | None]] = []
        self.url = ""


@pytest.fixture
def answers() -> Iterator[Answers]:
    answers = Answers()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers.asked.append((parse_qs(urlsplit(self.path).query), self.headers.get("Authorization")))
            if answers.hangs:
                answers.hang.wait(10)
                return
            self.send_response(answers.status)
            for name, value in {"Content-Length": str(len(answers.body)), **answers.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answers.body[: 10 if answers.stalls else None])
            if answers.stalls:
                self.wfile.flush()
                answers.hang.wait(10)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    answers.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield answers
    answers.hang.set()
    server.shutdown()
    server.server_close()
    thread.join()


@contextmanager
def source(url: str, **options: object) -> Iterator[PrometheusSource]:
    made = PrometheusSource(url, **options)  # type: ignore[arg-type]
    try:
        yield made
    finally:
        made.close()


def failure(url: str, **options: object) -> str:
    with source(url, **options) as made, pytest.raises(SourceError) as caught:
        made.read(["up"], supply(), 60.0, 1000.0)
    return str(caught.value)


def test_samples_come_as_they_were_scraped(answers: Answers) -> None:
    with source(answers.url) as made:
        (series,) = made.read(["up", "vllm:num_requests_waiting"], supply(), 60.5, 1000.0)
    assert (series.name, dict(series.labels), series.at_s) == ("up", {"instance": GATEWAY}, (1.5, 2.5, 3.5))
    assert series.values[0] == 1.0
    assert series.values[1] != series.values[1]
    ((query, authorization),) = answers.asked
    assert query["time"] == ["1000.000"]
    assert authorization is None
    assert query["query"][0].endswith("[60500ms]")


def test_a_query_that_means_just_the_graph(answers: Answers) -> None:
    assert selector(["a", "b:c"], {"namespace": 'x"y\\'}, ["10.0.0.1:80", "pod-1:80"], 1.0) == (
        '{__name__=~"a|b:c",instance=~"10\\\\.0\\\\.0\\\\.1:80|pod\\\\-1:80",namespace="x\\"y\\\\"}[1000ms]'
    )
    with source(answers.url, matchers={"cluster": "one"}) as made:
        made.read(["up"], supply(), 60.0, 1000.0)
        made.read(["up"], supply(worker(PREFILL, "prefill")), 60.0, 1030.0)
        made.read(["up"], supply(worker(PREFILL, "prefill")), 60.0, 1061.0)
        assert made.read(["up"], supply(gateways=()), 60.0, 2000.0)
    queries = [asked["query"][0] for asked, _ in answers.asked]
    assert all('cluster="one"' in query for query in queries)
    # One that has gone is asked for until its samples leave the span.
    gone = re.escape(DECODE).replace("\\", "\\\\")
    assert [gone in query for query in queries] == [True, True, False, True]
    assert GATEWAY.split(":")[1] not in queries[-1]


def test_the_token_is_read_for_every_query(answers: Answers, tmp_path: Path) -> None:
    token = tmp_path / "token"
    with source(answers.url, token_file=token) as made:
        with pytest.raises(SourceError, match=r"token for Prometheus cannot be read from .*token"):
            made.read(["up"], supply(), 60.0, 1000.0)
        for secret in ("first", "second"):
            token.write_text(f"{secret}\n")
            made.read(["up"], supply(), 60.0, 1000.0)
    assert [authorization for _, authorization in answers.asked] == ["Bearer first", "Bearer second"]


def test_refused() -> None:
    assert re.search(r"http://127.0.0.1:\d+ cannot be reached: .*refused", failure(f"http://127.0.0.1:{free_port()}"))


def test_a_name_that_is_not_known() -> None:
    assert "cannot be reached" in failure("http://nowhere.invalid:9090")


def test_hanging(answers: Answers) -> None:
    answers.hangs = True
    assert failure(answers.url, timeout_s=0.2).endswith("did not answer within 0.2 s")
    # Listening, and nobody accepts.
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(1)
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        assert failure(url, timeout_s=0.2).endswith("did not answer within 0.2 s")


def test_an_answer_that_stops_half_way(answers: Answers) -> None:
    answers.stalls = True
    assert failure(answers.url, timeout_s=0.2).endswith("did not answer in full within 0.2 s")


def test_errors_are_not_tried_again_within_the_tick(answers: Answers) -> None:
    answers.status = 503
    answers.body = b"Service Unavailable"
    assert failure(answers.url).endswith("answered 503: Service Unavailable")
    assert len(answers.asked) == 1


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (400, b'{"status":"error","error":"parse error"}', "answered 400: parse error"),
        (401, b"", "answered 401: an empty body"),
        (422, b'{"status":"error","error":"too many samples"}', "answered 422: too many samples"),
        (500, b"<html>" + b"x" * 5000, "answered 500: <html>" + "x" * 194),
        (200, b"<html>Sign in</html>", "answered something that is not JSON: <html>Sign in</html>"),
        (200, b"", "answered something that is not JSON: an empty body"),
        (200, b'{"status":"success","data":{"resul', 'not JSON: {"status":"success","data":{"resul'),
        (200, b"[1,2]", "answered JSON that is no query result: [1,2]"),
        (200, b"null", "answered JSON that is no query result: null"),
        (200, b'{"status":"error","error":"odd"}', "answered JSON that is no query result: odd"),
        (200, b'{"data":{"result":"x"}}', "is no matrix"),
        (200, b'{"data":{"result":[1]}}', "is no matrix"),
        (200, b'{"data":{"result":[{"metric":{"__name__":"c"},"values":[[1,"x"]]}]}}', "samples of c that are not"),
        (200, b'{"data":{"result":[{"metric":{"__name__":"c"},"values":[[1]]}]}}', "samples of c that are not"),
        (200, b'{"data":{"result":[{"metric":"c","values":[[1,"1"]]}]}}', "are not numbers"),
        (
            200,
            b'{"data":{"result":[]},"warnings":["store gateway-2 is down"]}',
            "gave a partial answer: store gateway-2 is down",
        ),
    ],
)
def test_answers_that_are_no_answer(answers: Answers, status: int, body: bytes, said: str) -> None:
    answers.status, answers.body = status, body
    assert failure(answers.url).startswith(f"Prometheus at {answers.url} ")
    assert said in failure(answers.url)


def test_an_answer_that_breaks_off(answers: Answers) -> None:
    answers.headers = {"Content-Length": "100000"}
    assert "broken" in failure(answers.url) or "IncompleteRead" in failure(answers.url)
    answers.headers = {"Content-Encoding": "gzip"}
    assert "cannot be" in failure(answers.url)
    answers.body = gzip.compress(answers.body)
    answers.headers = {"Content-Encoding": "gzip", "Content-Length": str(len(answers.body))}
    with source(answers.url) as made:
        assert len(made.read(["up"], supply(), 60.0, 1000.0)) == 1


def test_without_addresses_nothing_is_asked(answers: Answers) -> None:
    empty = supply(gateways=())
    with source(answers.url) as made:
        assert made.read(["up"], type(empty)({}, ()), 60.0, 1000.0) == ()
    assert answers.asked == []
