"""`treepo serve` as processes: several of them behind a key, a busy engine, and how they end.

Each of two servers of its own serves some tests and is ended by the last one of them, so the tests
of a server stand in order.
"""

import json
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import httpx
import psutil
import pytest

from tests.support import tiny_chat
from tests.support.server import Server, metric_in, serve
from tests.support.spans import ENVIRONMENT as TRACED
from tests.support.spans import receive_spans

pytestmark = pytest.mark.contract

KEY = "sk-contract"
SLOTS = 8
GRACE_S = 1
END_LIMIT_S = 60
WAIT_LIMIT_S = 60
CHAT = "/v1/chat/completions"


def body(width, max_tokens, **options):
    return {
        "model": "tiny",
        "messages": [{"role": "user", "content": "What is 1 + 1?"}],
        "max_tokens": max_tokens,
        "tree": {"width": width, "root_branching": width, "branching": "even"},
        **options,
    }


def long_body(width, **options):
    """A tree that runs until somebody ends it."""
    return body(width, 900, ignore_eos=True, **options)


def endless_body():
    """A tree that grows for minutes, two paths at a time: two of it fit a process's slots."""
    waves = {"width": 64, "root_branching": 64, "branching_factor": 1, "start": 2}
    return long_body(64, tree={"branching": "even", "fallback": "none", **waves})


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return tiny_chat.build(tmp_path_factory.mktemp("tiny-chat"))


@pytest.fixture(scope="module")
def spans():
    """Where the pair sends its spans."""
    with receive_spans() as spans:
        yield spans


@pytest.fixture(scope="module")
def pair(model, spans, tmp_path_factory):
    """Two API processes behind a key, with few slots, that are traced."""
    flags = ["--served-model-name", "tiny", "--kv-cache-memory-bytes", "64M"]
    flags += ["--api-key", KEY, "--api-server-count", "2", "--log-json"]
    flags += ["--tree-max-live-paths", str(SLOTS), "--tree-max-waiting", "2"]
    flags += ["--tree-drain-s", str(GRACE_S), "--otlp-traces-endpoint", spans.url]
    with serve(model, tmp_path_factory.mktemp("pair") / "log", *flags, **TRACED) as server:
        yield server


@pytest.fixture(scope="module")
def crowded(model, tmp_path_factory):
    """A server whose KV cache holds two long sequences."""
    flags = ["--served-model-name", "tiny", "--kv-cache-memory-bytes", "1M", "--tree-kv-full", "1"]
    with serve(model, tmp_path_factory.mktemp("crowded") / "log", *flags) as server:
        yield server


def caller(server: Server, key=KEY) -> httpx.Client:
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(base_url=server.url, headers=headers, timeout=120)


def post(server, request):
    with caller(server) as http:
        return http.post(CHAT, json=request)


def wait_until(server, is_so):
    """Waits for what the metrics say."""
    deadline = time.monotonic() + WAIT_LIMIT_S
    while not is_so(seen := server.read("/metrics")):
        assert time.monotonic() < deadline, seen
    return seen


def below(server):
    return psutil.Process(server.process.pid).children(recursive=True)


def test_without_the_key_nothing_of_ours_is_told(pair):
    with caller(pair, key=None) as http:
        answers = [http.get("/v1/treepo/capabilities"), http.post(CHAT, json=body(2, 8))]
    assert [answer.status_code for answer in answers] == [401, 401]
    with caller(pair) as http:
        assert http.get("/v1/treepo/capabilities").status_code == 200


def test_all_other_routes_of_ours_are_below_v1_and_change_nothing(pair):
    with caller(pair) as http:
        paths = http.get("/openapi.json").json()["paths"]
    ours = {path: set(methods) for path, methods in paths.items() if "treepo" in path}
    assert ours
    for path, methods in ours.items():
        assert path.startswith("/v1/treepo/")
        assert methods == {"get"}


def test_both_processes_sample_trees_and_their_metrics_add_up(pair):
    # Each process has let the engine generate something to see whether it reports entropies.
    before = metric_in(pair.read("/metrics"), "vllm:generation_tokens_total")
    with ThreadPoolExecutor(SLOTS) as pool:
        answers = list(pool.map(lambda _: post(pair, body(4, 40)), range(2 * SLOTS)))
    good = [answer.json() for answer in answers if answer.status_code == 200]
    assert {answer.status_code for answer in answers} <= {200, 429}
    assert good
    seen = wait_until(pair, lambda text: not metric_in(text, "treepo_running_trees"))
    assert metric_in(seen, "treepo_slots") == SLOTS
    assert metric_in(seen, "treepo_trees_total", 'outcome="complete"') == len(good)
    used = sum(answer["usage"]["completion_tokens"] for answer in good)
    assert metric_in(seen, "treepo_tokens_total", 'kind="generated"') == used
    assert metric_in(seen, "vllm:generation_tokens_total") - before == used


def test_overload_is_refused_at_once_and_holds_up_nobody_when_it_ends(pair):
    before = metric_in(pair.read("/metrics"), "treepo_trees_total", 'outcome="overload"')
    with ThreadPoolExecutor(24) as pool, caller(pair) as http:
        streams = [
            http.stream("POST", CHAT, json=long_body(16, stream=True, n=1)) for _ in range(24)
        ]
        opened = list(pool.map(lambda stream: stream.__enter__(), streams))
        refused = [answer for answer in opened if answer.status_code == 429]
        most = wait_until(pair, lambda text: metric_in(text, "treepo_live_paths") == SLOTS)
        assert metric_in(most, "vllm:num_requests_running") <= SLOTS
        assert 200 in {answer.status_code for answer in opened}
        assert refused
        for answer in refused:
            assert int(answer.headers["Retry-After"]) >= 1
            assert json.loads(answer.read())["error"]["type"] == "RateLimitError"
        for stream in streams:
            stream.__exit__(None, None, None)
    seen = wait_until(pair, lambda text: not metric_in(text, "treepo_running_trees"))
    assert metric_in(seen, "treepo_live_paths") == metric_in(seen, "treepo_waiting_paths") == 0
    refusals = metric_in(seen, "treepo_trees_total", 'outcome="overload"') - before
    assert refusals == len(refused)
    assert post(pair, body(4, 40)).status_code == 200


def test_a_tree_far_wider_than_its_slots_is_answered_whole(pair):
    width = 8 * SLOTS
    answer = post(pair, body(width, 8, n=width)).json()
    assert answer["tree"]["finish"] == "complete"
    assert len(answer["choices"]) == len(answer["tree"]["trajectories"]) == width
    assert sum(t["weight"] for t in answer["tree"]["trajectories"]) == pytest.approx(1)


def test_each_log_line_is_json_and_names_its_request(pair):
    with caller(pair) as http:
        answer = http.post(CHAT, json=body(2, 8), headers={"X-Request-Id": "findme"}).json()
    lines = [line for line in pair.log.read_text().splitlines() if line.startswith("{")]
    records = [json.loads(line) for line in lines]
    ended = [r for r in records if r.get("request_id") == answer["id"]]
    assert answer["id"].endswith("findme")
    assert [r["message"].split(",")[0] for r in ended] == ["tree ended: complete"]


def test_the_spans_of_a_tree_its_segments_and_its_paths_lie_below_the_callers(pair, spans):
    trace, parent = f"{7:032x}", f"{9:016x}"
    tree = {"width": 4, "root_branching": 2, "branching": "even", "segment_tokens": 32}
    asked = body(4, 100, ignore_eos=True, tree={**tree, "include": ["nodes"]})
    with caller(pair) as http:
        headers = {"traceparent": f"00-{trace}-{parent}-01"}
        answer = http.post(CHAT, json=asked, headers=headers).json()
    nodes = answer["tree"]["nodes"]
    num_paths = len({node["path"] for node in nodes})
    seen = spans.of(trace, 1 + len(nodes) + num_paths)
    (root,) = [span for span in seen if span.name == "treepo.tree"]
    assert root.parent_span_id.hex() == parent
    segments = [span for span in seen if span.name == "treepo.segment"]
    paths = [span for span in seen if span.name == "llm_request"]
    assert (len(segments), len(paths)) == (len(nodes), num_paths)
    assert {span.parent_span_id for span in [*segments, *paths]} == {root.span_id}
    for span in segments:
        start, end = span.start_time_unix_nano, span.end_time_unix_nano
        assert root.start_time_unix_nano <= start <= end <= root.end_time_unix_nano


def test_told_to_stop_it_answers_what_runs_and_takes_nothing_new(pair):
    processes = below(pair)
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(post, pair, endless_body()) for _ in range(2)]
        wait_until(pair, lambda text: metric_in(text, "treepo_running_trees") == 2)
        pair.process.send_signal(signal.SIGTERM)
        late = refusal(pair)
        answers = [future.result() for future in running]
    assert late.headers["Retry-After"] == "5"
    for answer in answers:
        assert answer.status_code == 200
        assert answer.json()["tree"]["finish"] == "cancelled"
        assert answer.json()["choices"][0]["message"]["content"]
    assert pair.process.wait(END_LIMIT_S) == 0
    assert not [process for process in processes if process.is_running()]


def refusal(server):
    """The first answer that is one of a server about to stop."""
    deadline = time.monotonic() + WAIT_LIMIT_S
    while time.monotonic() < deadline:
        with suppress(httpx.TransportError):
            answer = post(server, body(1, 1))
            if answer.status_code == 503:
                return answer
    pytest.fail("no tree was refused")


def test_a_full_cache_delays_a_tree_and_costs_it_nothing(crowded):
    answer = post(crowded, body(8, 600, ignore_eos=True, n=8))
    assert answer.status_code == 200
    assert len(answer.json()["choices"]) == 8
    assert answer.json()["tree"]["finish"] == "complete"
    assert metric_in(crowded.read("/metrics"), "vllm:num_preemptions_total") > 0


def read_until_it_fails(server, path, request, has_begun):
    """The events of a stream to its end, whatever ends it; a barrier is met at the first one."""
    with caller(server) as http, http.stream("POST", path, json=request) as stream:
        lines = stream.iter_lines()
        seen = [next(lines)]
        has_begun.wait(WAIT_LIMIT_S)
        seen += lines
    return [json.loads(line.removeprefix("data: ")) for line in seen if line.startswith("data: {")]


def test_a_dead_engine_fails_its_trees_its_health_and_the_process(crowded):
    processes = below(crowded)
    (engine,) = [p for p in processes if p.name().startswith("VLLM::EngineCor")]
    has_begun = threading.Barrier(3)
    response = long_body(8, stream=True, input="hi", max_output_tokens=900)
    del response["messages"], response["max_tokens"]
    with ThreadPoolExecutor(3) as pool:
        whole = pool.submit(post, crowded, long_body(32))
        chat, events = (
            pool.submit(read_until_it_fails, crowded, path, request, has_begun)
            for path, request in (
                (CHAT, long_body(32, stream=True, n=32)),
                ("/v1/responses", response),
            )
        )
        wait_until(crowded, lambda text: metric_in(text, "treepo_running_trees") == 3)
        has_begun.wait(WAIT_LIMIT_S)
        engine.kill()
        assert whole.result().status_code == 503
        said = chat.result()
        assert said[-1].get("error", said[-1]).get("code") == 503, said[-3:]
        last = events.result()[-1]
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed"), last
    with suppress(httpx.TransportError), caller(crowded) as http:
        assert http.get("/health").status_code == 503
    assert crowded.process.wait(END_LIMIT_S) == 1
    assert "the engine died" in crowded.log.read_text()
    assert not [process for process in processes if process.is_running()]
