"""Settings under which vLLM samples trees well on a CPU, and an engine started with them.

Whoever starts an engine takes them from here, `VllmEngine.start` as well as the server. It changes
nothing that the user has set, and loads vLLM only when an engine is to be started. To tune another
platform, add its table beside these.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Collection, Mapping
from typing import Any

from treepo.engines.vllm_worker import WORKER

CPU_DEFAULTS: Mapping[str, Any] = {
    "dtype": "float32",  # AVX2 has no bf16 arithmetic: bf16 is 4 times slower there
    "block_size": 32,  # the kernels take multiples of 32, and a branch wants small blocks
    "enforce_eager": True,  # compiling takes minutes and a C++ compiler, for no gain here
    "max_num_seqs": 64,
}
"""Engine arguments for a CPU, under the names of vLLM's `EngineArgs`."""

CPU_CACHE_BYTES = 4 * 1024**3
"""Size of the KV cache, in bytes; vLLM would claim nearly all of the machine's memory."""

FEW_CPUS = 4
"""Up to here every logical CPU computes; above, vLLM's choice (one thread a core) is better."""


def cpu_defaults(chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Engine arguments that make vLLM work well on a CPU, for all that `chosen` leaves open.

    Prefills stay whole, since a seeded request whose prefill is split kills vLLM's engine on a
    CPU: with chunked prefill off, vLLM makes room for a prompt of the model's length.

    Args:
        chosen: Engine arguments that are set already; None counts as open.
    """
    defaults = dict(CPU_DEFAULTS)
    if chosen.get("max_num_batched_tokens") is None:
        defaults["enable_chunked_prefill"] = False
    if chosen.get("gpu_memory_utilization") is None:
        defaults["kv_cache_memory_bytes"] = CPU_CACHE_BYTES
    return {name: value for name, value in defaults.items() if chosen.get(name) is None}


def cpu_environment(
    num_workers: int, environment: Mapping[str, str], cpus: Collection[int]
) -> dict[str, str]:
    """Variables to add so that a CPU engine computes on all cores, and without a compiler too.

    vLLM keeps one core for its front end, which on a small machine is half of it: 14, 109 and
    142 tokens a second at 1, 16 and 64 running, against 10, 60 and 88 (two cores, SmolLM2-135M).
    Its sampler compiles functions where log-probs are wanted, at the first such request; the engine
    dies of it where there is no C++ compiler, so there they stay as they are written.

    Args:
        num_workers: Worker processes that share the machine.
        environment: What is set already.
        cpus: Ids of the logical CPUs this process may use.
    """
    wanted = {"VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    if num_workers == 1 and len(cpus) <= FEW_CPUS:
        wanted["VLLM_CPU_OMP_THREADS_BIND"] = ",".join(str(cpu) for cpu in sorted(cpus))
    if shutil.which(environment.get("CXX", "g++")) is None:
        wanted["TORCH_COMPILE_DISABLE"] = "1"
    return {name: value for name, value in wanted.items() if name not in environment}


def with_entropies(chosen: Mapping[str, Any]) -> list[Any] | None:
    """The chosen logits processors and the one that reports entropies.

    Speculative decoding takes no processors, and one that is named already stays alone.
    """
    from treepo.engines.vllm_entropy import processor_fqcn

    named = list(chosen.get("logits_processors") or ())
    if chosen.get("speculative_config") is not None or processor_fqcn() in named:
        return named or None
    return [*named, processor_fqcn()]


def start_client(model: str, chosen: Mapping[str, Any]) -> Any:
    """A running `AsyncLLM`; blocks while the model is loaded.

    Log-probs are those of the distribution that tokens are drawn from (`processed_logprobs`),
    statistics are off, entropies are reported and workers can be given other weights, unless said
    otherwise.

    Args:
        model: A local folder or a name on the model hub.
        chosen: vLLM's `AsyncEngineArgs`, as far as they are set.
    """
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.platforms import current_platform
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = {
        "logprobs_mode": "processed_logprobs",
        "disable_log_stats": True,
        "worker_extension_cls": WORKER,
        **chosen,
    }
    arguments["logits_processors"] = with_entropies(chosen)
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")
    if current_platform.is_cpu():
        arguments |= cpu_defaults(chosen)
        workers = chosen.get("tensor_parallel_size", 1) * chosen.get("pipeline_parallel_size", 1)
        os.environ.update(cpu_environment(workers, os.environ, usable_cpus()))
    return AsyncLLM.from_engine_args(AsyncEngineArgs(model=model, **arguments))


def usable_cpus() -> list[int]:
    """Ids of the logical CPUs that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return sorted(affinity(0)) if affinity else list(range(os.cpu_count() or 1))
