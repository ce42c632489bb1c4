# The client and the maker of data sets, without PyTorch. Build it in the repository's root:
#   docker build -f containers/client.Dockerfile -t galatea-client:0.1.0 .
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
# Formats and stores to bring: of dicom, nifti, parquet, s3, telemetry.
ARG EXTRAS=s3
# Whichever binutils Debian has: nothing of it is kept.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends binutils \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY client client
COPY exporter exporter
COPY server server
RUN python -m venv /opt/galatea \
    && /opt/galatea/bin/pip install --no-cache-dir ".[${EXTRAS}]" \
    && /opt/galatea/bin/pip uninstall --yes pip setuptools
# What no client runs: tests, symbols for debuggers (libraries that wheels bring in *.libs stay as they
# are), services of AWS but for S3 and signing in, colours for source code.
WORKDIR /opt/galatea/lib/python3.11/site-packages
RUN find . -name tests -type d -prune -exec rm -r {} + \
    && find . -name '*.so' -not -path '*.libs/*' -exec strip --strip-unneeded {} + \
    && if [ -d botocore ]; then find botocore/data -mindepth 1 -maxdepth 1 -type d \
        -not -name s3 -not -name sts -not -name 'sso*' -not -name signin -exec rm -r {} +; fi \
    && rm -r pygments

# Debian without what installs packages, in one layer.
FROM ${PYTHON_IMAGE} AS base
RUN rm -rf /usr/lib/python3/dist-packages /usr/local/lib/python3.11/site-packages/* \
        /usr/local/lib/python3.11/ensurepip /usr/lib/python3.11/ensurepip \
        /usr/bin/perl* /usr/lib/x86_64-linux-gnu/perl-base /usr/lib/x86_64-linux-gnu/gconv \
        /usr/share/doc /usr/share/man /usr/share/locale /usr/share/python-wheels \
        /usr/lib/apt /var/lib/apt /var/cache/apt /var/cache/debconf

FROM scratch
# The whole of it is meant: one layer, in which what was removed takes no room.
# hadolint ignore=DL3067
COPY --from=base / /
COPY --from=build /opt/galatea /opt/galatea
ENV PATH=/opt/galatea/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp
USER 1000:1000
WORKDIR /data
ENTRYPOINT ["/opt/galatea/bin/galatea"]
CMD ["--help"]
