# Two images of `treepo serve`, neither with weights in it:
#   docker build --target gpu -t treepo .         on vLLM's own image, for CUDA
#   docker build --target cpu -t treepo:cpu .     on plain Python, to try it without a GPU
# The model is an argument (`docker run treepo MODEL`); /models keeps what is downloaded.
ARG VLLM_VERSION=0.32.0
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# ---- the package, as a wheel ----
FROM ${PYTHON_IMAGE} AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY treepo treepo
COPY server server
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# ---- GPU: the matching vLLM image, and this package in its environment ----
FROM vllm/vllm-openai:v${VLLM_VERSION} AS gpu
COPY --from=wheel /wheels /wheels
# What vLLM was built and tested with stays as it is.
RUN python3 -m pip list --format=freeze > /tmp/installed.txt \
    && python3 -m pip install --no-cache-dir --constraint /tmp/installed.txt /wheels/*.whl \
    && rm -r /wheels /tmp/installed.txt
RUN useradd --uid 10001 --create-home treepo \
    && mkdir /models \
    && chown treepo /models
ENV HF_HOME=/models
VOLUME /models
USER 10001
WORKDIR /models
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# Then the model and any flag, in this order; it listens on 0.0.0.0:8000 by default.
ENTRYPOINT ["treepo", "serve"]

# ---- CPU: the locked packages in an environment of their own ----
FROM ${PYTHON_IMAGE} AS cpu-packages
# A CPU build of torch is far smaller: --build-arg TORCH=torch==2.13.0+cpu where the index has it.
ARG TORCH=torch==2.13.0
ARG PIP_EXTRA_INDEX_URL
RUN python3 -m venv /opt/treepo
COPY requirements/cpu.lock /tmp/cpu.lock
RUN /opt/treepo/bin/pip install --no-cache-dir "${TORCH}"
RUN /opt/treepo/bin/pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: \
        --requirement /tmp/cpu.lock
COPY --from=wheel /wheels /wheels
RUN /opt/treepo/bin/pip install --no-cache-dir --no-deps /wheels/*.whl

FROM ${PYTHON_IMAGE} AS cpu
# vLLM's CPU kernels are linked against libnuma and compile a little with the system's compiler.
# Whatever Debian has for this release, security updates included:
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libnuma1 libgomp1 g++ \
    && rm -rf /var/lib/apt/lists/*
COPY --from=cpu-packages /opt/treepo /opt/treepo
RUN useradd --uid 10001 --create-home treepo \
    && mkdir /models \
    && chown treepo /models
ENV PATH=/opt/treepo/bin:${PATH} HF_HOME=/models
VOLUME /models
USER 10001
WORKDIR /models
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=15m --retries=3 \
    CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/health', timeout=4)"]
# Then the model and any flag, in this order; it listens on 0.0.0.0:8000 by default.
ENTRYPOINT ["treepo", "serve"]
