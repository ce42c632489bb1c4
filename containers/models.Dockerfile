# A model repository as an image: pulled once for each node, and as immutable as a release. It is
# mounted as an image volume, or copied by an init container. Build it in the repository's root:
#   docker build -f containers/models.Dockerfile -t galatea-models:1 model_repository
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
FROM ${PYTHON_IMAGE}
COPY . /models
USER 1000:1000
