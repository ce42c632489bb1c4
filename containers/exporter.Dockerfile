# Exports checkpoints, which may come from anywhere: run it without a network. Build it in the
# repository's root:
#   docker build -f containers/exporter.Dockerfile -t galatea-exporter:0.1.0 .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# An index that has PyTorch for CPUs, or wheels in containers/wheels; see docs/containers.md.
ARG PIP_EXTRA_INDEX_URL=
WORKDIR /source
COPY containers/wheels wheels
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY exporter exporter
COPY server server
RUN python -m venv /opt/galatea \
    && /opt/galatea/bin/pip install --no-cache-dir --find-links wheels '.[export]' \
    && /opt/galatea/bin/python -c 'import sys, torch; torch.version.cuda and sys.exit("this PyTorch is for CUDA, which makes an image of many GB: name an index with PyTorch for CPUs by --build-arg PIP_EXTRA_INDEX_URL, or put its wheel into containers/wheels")' \
    && /opt/galatea/bin/pip uninstall --yes pip setuptools \
    && rm -r /opt/galatea/lib/python3.*/site-packages/torch/include

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/galatea /opt/galatea
# A release is prepared beside the repository and moved in, so both lie in the folder that is mounted.
ENV PATH=/opt/galatea/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    ORT_DISABLE_TELEMETRY=1 \
    HOME=/tmp
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["/opt/galatea/bin/galatea"]
CMD ["export", "--help"]
