# `swinir serve` as an image, for GPUs and CPUs:
#   docker build -t swinir .
# Smaller, for CPUs only; INDEX is the address of PyTorch's package index for CPUs, from its installation page:
#   docker build -t swinir --build-arg DEVICE=cpu --build-arg TORCH_INDEX=INDEX .
ARG PYTHON=3.12

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/swinir \
    && /opt/swinir/bin/pip install ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} "torch>=2.6" "torchvision>=0.21"
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY configs configs
COPY model_zoo/bundled model_zoo/bundled
COPY swinir swinir
RUN /opt/swinir/bin/pip install ".[serve,heic]"

FROM python:${PYTHON}-slim
ARG DEVICE=cuda
# Triton compiles the launchers of its kernels with gcc.
# hadolint ignore=DL3008
RUN if [ "$DEVICE" = cuda ]; then \
        apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*; \
    fi \
    && useradd --create-home --uid 1000 swinir \
    && install -d -o swinir /weights
COPY --from=build /opt/swinir /opt/swinir
# Downloaded weights: mount a volume, and run `swinir zoo download NAME` in the container once.
ENV PATH=/opt/swinir/bin:$PATH SWINIR_ZOO=/weights TRITON_CACHE_DIR=/tmp/triton PYTHONUNBUFFERED=1
USER 1000
WORKDIR /weights
EXPOSE 8000
HEALTHCHECK --start-period=60s --interval=30s --timeout=10s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health', timeout=9)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["swinir", "serve", "--host", "0.0.0.0"]
