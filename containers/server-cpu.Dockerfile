# The embedded Triton on CPUs. Build it in the repository's root:
#   docker build -f containers/server-cpu.Dockerfile -t galatea-server-cpu:0.1.0 .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY exporter exporter
COPY server server
# sympy is for shape inference in onnxruntime's tools, which a server never does.
RUN python -m venv /opt/galatea \
    && /opt/galatea/bin/pip install --no-cache-dir '.[serve]' \
    && /opt/galatea/bin/pip uninstall --yes sympy mpmath pip setuptools \
    && find /opt/galatea -name tests -type d -prune -exec rm -r {} +
# Triton wants its backends as real files in one folder; at run time nothing can be written.
ENV XDG_CACHE_HOME=/opt/galatea/cache
RUN /opt/galatea/bin/python -c 'from galatea_server.installation import *; backend_directory(locate())'

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/galatea /opt/galatea
ENV PATH=/opt/galatea/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    XDG_CACHE_HOME=/opt/galatea/cache \
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
HEALTHCHECK --interval=10s --timeout=5s --start-period=300s --retries=3 \
    CMD ["/opt/galatea/bin/python", "-m", "galatea_server.health"]
ENTRYPOINT ["/opt/galatea/bin/galatea", "serve"]
