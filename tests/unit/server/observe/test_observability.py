"""Logs, spans, metrics and the dashboard: what an operator sees of a tree."""

import asyncio
import json
import logging
import logging.config
import re
from pathlib import Path

import pytest
from prometheus_client import Counter, Gauge, Histogram
from vllm import SamplingParams

from tests.support.played_vllm import PROMPT, PlayedVllm, asked, service
from tests.support.scenarios import engines, job_of, plain
from treepo.errors import EngineError
from treepo.sampler import sample_tree
from treepo_server.load.governed import GovernedEngine
from treepo_server.load.governor import Governor
from treepo_server.observe import metrics
from treepo_server.observe.logs import JSON_CONFIG, REQUEST_ID, JsonFormatter, log
from treepo_server.observe.spans import TreeSpan

ROOT = Path(__file__).parents[4]
DASHBOARD = ROOT / "deploy" / "grafana" / "treepo.json"
OPERATIONS = ROOT / "docs" / "operations.md"
SUFFIXES = {"counter": ["_total"], "gauge": [""], "histogram": ["_bucket", "_sum", "_count"]}


@pytest.fixture
def records(monkeypatch):
    """What is logged of trees."""
    seen = []
    handler = logging.Handler()
    handler.emit = seen.append
    monkeypatch.setattr(log.logger, "handlers", [handler])
    monkeypatch.setattr(log.logger, "level", logging.INFO)
    log.logger.manager._clear_cache()
    return seen


def in_request(name, message):
    token = REQUEST_ID.set(name)
    try:
        log.info(message)
    finally:
        REQUEST_ID.reset(token)


def test_a_line_of_a_tree_begins_with_its_request(records):
    in_request("chatcmpl-1", "tree ended")
    log.info("nobody's")
    assert [r.getMessage() for r in records] == ["[chatcmpl-1] tree ended", "nobody's"]


async def test_each_thing_that_was_done_otherwise_than_asked_is_a_warning(records):
    def lose(request_id, number):
        return EngineError("gone") if request_id.endswith("-1") else None

    trees = service(PlayedVllm(lose=lose))
    options = {"max_tokens": 8, "presence_penalty": 1.0}
    plan = trees.plan(asked(), PROMPT, SamplingParams(**options), "chatcmpl-4", {})
    await trees.start(plan, PROMPT, {})
    warned = [r.getMessage() for r in records if r.levelno == logging.WARNING]
    assert all(line.startswith("[chatcmpl-4] ") for line in warned)
    assert [line for line in warned if "`presence_penalty` would start afresh" in line]
    assert [line for line in warned if "path 1 was lost" in line]


def test_a_json_line_holds_the_request_and_the_error():
    formatter = JsonFormatter()
    record = logging.makeLogRecord({"msg": "a %s\nb", "args": ("ü",), "levelname": "INFO"})
    assert json.loads(formatter.format(record))["message"] == "a ü\nb"
    token = REQUEST_ID.set("chatcmpl-2")
    try:
        record.msg = "[chatcmpl-2] a %s"
        raised = ValueError("bad")
        record.exc_info = (ValueError, raised, None)
        line = json.loads(formatter.format(record))
    finally:
        REQUEST_ID.reset(token)
    assert (line["request_id"], line["message"]) == ("chatcmpl-2", "a ü")
    assert "ValueError: bad" in line["error"]


def test_the_json_configuration_is_one_that_logging_takes():
    config = json.loads(Path(JSON_CONFIG).read_text())
    kind = logging.config.DictConfigurator(config).configure_formatter(config["formatters"]["json"])
    assert isinstance(kind, JsonFormatter)


def test_a_tree_and_its_segments_are_spans_below_the_callers():
    pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk, as vLLM's tracing")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    caller = f"00-{7:032x}-{9:016x}-01"
    span = TreeSpan(provider.get_tracer("test"), "chatcmpl-3", {"traceparent": caller})

    async def grow():
        scenario = plain()
        engine = GovernedEngine(
            engines(scenario)[1],
            Governor(2).seat(),
            lambda id_, chunk: span.saw(id_, len(chunk.token_ids) if chunk else 0),
        )
        return await sample_tree(engine, job_of(scenario))

    tree = asyncio.run(grow())
    span.end(tree, str(tree.finish))
    *segments, root = exporter.get_finished_spans()
    assert (root.context.trace_id, root.parent.span_id) == (7, 9)
    assert root.attributes["gen_ai.request.id"] == "chatcmpl-3"
    assert span.headers["traceparent"].split("-")[2] == f"{root.context.span_id:016x}"
    assert len(segments) == len(tree.nodes)
    assert sum(s.attributes["treepo.tokens"] for s in segments) == sum(
        len(node.token_ids) for node in tree.nodes
    )
    for segment in segments:
        assert segment.parent.span_id == root.context.span_id
        assert root.start_time <= segment.start_time <= segment.end_time <= root.end_time
    by_path = {}
    for segment in sorted(segments, key=lambda s: s.attributes["treepo.start_tokens"]):
        before = by_path.setdefault(segment.attributes["treepo.path"], segment)
        assert before is segment or before.end_time <= segment.end_time


def our_metrics():
    """Every series that the server exports, by name."""
    kinds = [m for m in vars(metrics).values() if isinstance(m, Counter | Gauge | Histogram)]
    described = [metric for kind in kinds for metric in kind.describe()]
    return {m.name: [m.name + suffix for suffix in SUFFIXES[m.type]] for m in described}


def test_every_query_of_the_dashboard_asks_for_a_metric_that_exists():
    series = {name for names in our_metrics().values() for name in names}
    queries = re.findall(r'"expr": "((?:[^"\\]|\\.)*)"', DASHBOARD.read_text())
    asked = {name for query in queries for name in re.findall(r"\btreepo_\w+", query)}
    assert len(queries) >= 10
    assert asked <= series
    others = {n for query in queries for n in re.findall(r"\bvllm:\w+", query)}
    assert others <= {"vllm:num_requests_running", "vllm:kv_cache_usage_perc"}


def test_the_page_of_operations_describes_every_metric():
    described = set(re.findall(r"^\| `(treepo_\w+)", OPERATIONS.read_text(), re.M))
    assert described == set(our_metrics())
