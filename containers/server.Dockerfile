# Triton on GPUs: NVIDIA's image with galatea's entry point. Build it in the repository's root:
#   docker build -f containers/server.Dockerfile -t galatea-server:0.1.0 .
#
# The one place where the release of Triton is pinned. galatea needs Python 3.11 or newer, which
# NVIDIA's images have from 24.11 on.
ARG TRITON_IMAGE=nvcr.io/nvidia/tritonserver:25.06-py3@sha256:75bcfa5b0043898ece3e603c17a5bbbb1c9bddc390563db24312ef59d83735e5

FROM ${TRITON_IMAGE} AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY exporter exporter
COPY server server
# Without pip inside, an environment needs no package of the system; the image's pip fills it.
RUN python3 -m venv --without-pip /opt/galatea \
    && python3 -m pip --python /opt/galatea/bin/python install --no-cache-dir . \
    && mkdir -p /var/cache/galatea/tensorrt

FROM ${TRITON_IMAGE}
COPY --from=build /opt/galatea /opt/galatea
# TensorRT's engines; a volume keeps them.
COPY --from=build --chown=1000:1000 /var/cache/galatea /var/cache/galatea
# Not on PATH: Triton's Python backend takes its standard library from the first python3 there.
ENV PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    GALATEA_SERVE_HOST=0.0.0.0 \
    GALATEA_SERVE_REPOSITORY=/models \
    GALATEA_SERVE_RESTRICT=true \
    GALATEA_SERVE_LOG=info \
    GALATEA_SERVE_LOG_FORMAT=iso8601
USER 1000:1000
WORKDIR /
VOLUME /models
EXPOSE 8000 8001 8002
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=900s --retries=3 \
    CMD ["/opt/galatea/bin/python", "-m", "galatea_server.health"]
ENTRYPOINT ["/opt/galatea/bin/galatea", "serve"]
