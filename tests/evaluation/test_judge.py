"""A judge over HTTP, on loopback: one that answers, and one that is busy, hangs, cuts off or talks nonsense."""

import json
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from pydantic import ValidationError

from evaluation.answers import AnswerStore
from evaluation.judge import Judge, JudgeFault, JudgeSpec

KEY = "A_JUDGES_KEY"
SECRET = "sk-very-secret"


class Court(ThreadingHTTPServer):
    """Answers by the first word of the user's prompt; `faults` come first, in their order."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Clerk)
        self.faults = []
        self.asked = []
        self.keys = set()
        self.lock = threading.Lock()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Clerk(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.asked.append((self.path, body))
            self.server.keys.add(self.headers["Authorization"])
            fault = self.server.faults.pop(0) if self.server.faults else None
        said = body["messages"][1]["content"]
        reply = {"choices": [{"message": {"content": f"좋은 답변입니다. 점수: [[{said.split()[0]}]]"}}]}
        if fault == "hangs":
            time.sleep(2)
            return
        if isinstance(fault, int):
            self.send_response(fault)
            if fault == 429:
                self.send_header("Retry-After", "0")
            self.send_header("Content-Length", "4")
            self.end_headers()
            self.wfile.write(b"busy")
            return
        content = json.dumps(reply).encode()
        if fault == "cuts off":
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[:20])
            self.close_connection = True
            return
        if fault == "no json":
            content = b"<html>welcome</html>"
        if fault == "no rating":
            content = json.dumps({"choices": [{"message": {"content": "I would rather not say. [[11]]"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Quiet."""


@pytest.fixture
def court():
    with Court() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def judge(court, tmp_path, monkeypatch):
    """A function from settings to a judge; all keep their verdicts in one store."""
    monkeypatch.setenv(KEY, SECRET)

    def made(**settings):
        given = {"url": court.url, "model": "j", "key": KEY, "templates": "-", "wait": 0.01, "timeout": 0.5}
        spec = JudgeSpec.model_validate(given | settings)
        return Judge(spec, AnswerStore(tmp_path / "verdicts"))

    return made


def prompts(*ratings):
    return [("You judge.", f"{rating} of ten") for rating in ratings]


def test_ratings_come_in_order_and_are_asked_once(court, judge):
    assert judge().rate(prompts(7, 3, 10, 1)) == [7, 3, 10, 1]
    assert len(court.asked) == 4
    path, body = court.asked[0]
    assert path == "/v1/chat/completions"
    assert (body["model"], body["temperature"]) == ("j", 0)
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert court.keys == {f"Bearer {SECRET}"}
    again = judge()
    assert again.rate(prompts(10, 7, 2)) == [10, 7, 2]
    assert (len(court.asked), again.calls) == (5, 1)
    assert judge(model="another").rate(prompts(7)) == [7]
    assert len(court.asked) == 6


@pytest.mark.parametrize("faults", [[429, 429, 503], ["hangs"], ["cuts off", 500], ["no json"], ["no rating"]])
def test_what_passes_is_waited_for(court, judge, faults):
    court.faults = list(faults)
    assert judge(parallel=1).rate(prompts(6)) == [6]
    assert len(court.asked) == len(faults) + 1


@pytest.mark.parametrize(
    ("faults", "said", "tries"),
    [
        ([503] * 9, r"gave no answer in 3 tries: status 503", 3),
        (["hangs"] * 9, r"gave no answer in 3 tries: ReadTimeout", 3),
        (["cuts off"] * 9, r"gave no answer in 3 tries: RemoteProtocolError", 3),
        (
            ["no json"] * 9,
            r"gave no answer in 3 tries: an answer that is no chat completion: '<html>.*; .* check `url`, which",
            3,
        ),
        (["no rating"] * 9, r"gave no rating from \[\[1\]\] to \[\[10\]\], 3 times: 'I would rather", 3),
        ([400], r"refused with status 400: 'busy'$", 1),
        ([401], rf"refused with status 401: 'busy'; see what {KEY} holds$", 1),
        (
            [404],
            r"refused with status 404: 'busy'; .*v1/chat/completions was asked for j: check `url`, which goes up to",
            1,
        ),
    ],
)
def test_what_does_not_pass_is_told(court, judge, faults, said, tries):
    court.faults = faults
    with pytest.raises(JudgeFault, match=said) as told:
        judge(attempts=3, timeout=0.2).rate(prompts(6))
    assert len(court.asked) == tries
    assert SECRET not in str(told.value)


def test_what_was_judged_before_a_fault_is_kept(court, judge):
    with pytest.raises(JudgeFault, match=r"budget of 3 calls is spent: raise `calls`; .* kept where") as told:
        judge(calls=3, parallel=1).rate(prompts(1, 2, 3, 4, 5))
    assert "resume" not in str(told.value)
    assert judge(calls=2).rate(prompts(1, 2, 3, 4, 5)) == [1, 2, 3, 4, 5]
    assert Counter(body["messages"][1]["content"] for _, body in court.asked).most_common(1)[0][1] == 1


def test_nobody_there_is_told(judge):
    with pytest.raises(JudgeFault, match=r"127\.0\.0\.1:9/v1 gave no answer in 2 tries: ConnectError"):
        Judge(judge().spec.model_copy(update={"url": "http://127.0.0.1:9/v1", "attempts": 2}), judge().store).rate(
            prompts(6)
        )


def test_a_key_is_the_environments_alone(judge, monkeypatch):
    asking = judge()
    assert SECRET not in asking.spec.model_dump_json()
    assert asking.spec.missing_key is None
    monkeypatch.delenv(KEY)
    assert asking.spec.missing_key == f"the judge's key {KEY} is not in the environment"
    with pytest.raises(JudgeFault, match="not in the environment"):
        asking.rate(prompts(6))


@pytest.mark.parametrize(
    "key",
    [SECRET, "sk-proj-A1", "AIzaSyD3xamp1e", "hf_abcdefghij", "gsk_a1b2c3d4e5", "0f3a9c" * 6, "", "MY KEY", "$KEY"],
)
def test_a_key_itself_is_refused_and_not_repeated(key):
    from search.errors import first_error

    with pytest.raises(ValidationError, match="is the name of an environment variable") as told:
        JudgeSpec.model_validate({"url": "http://127.0.0.1/v1", "model": "j", "key": key, "templates": "-"})
    said = str(told.value) + first_error(told.value)
    assert not key or key == "MY KEY" or key not in said.replace("JUDGE_API_KEY", "")


@pytest.mark.parametrize("name", ["JUDGE_API_KEY", "OPENAI_API_KEY", "gemini_key_2", "_K", "SK_LIVE"])
def test_a_variables_name_is_taken(judge, name):
    assert judge(key=name).spec.key == name


def test_the_server_says_when(court, judge):
    court.faults = [429]
    began = time.monotonic()
    court.RequestHandlerClass = type("Later", (Clerk,), {"send_header": later})
    assert judge(parallel=1).rate(prompts(6)) == [6]
    assert time.monotonic() - began >= 1.0


def later(self, name, value):
    BaseHTTPRequestHandler.send_header(self, name, "1" if name == "Retry-After" else value)
