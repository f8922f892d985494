# syntax=docker/dockerfile:1
# vlkit in a container: its wheel, built from this folder, and what it needs from the package registry. docs/docker.md shows how.

FROM python:3.12-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY vlkit vlkit
COPY recipes recipes
COPY data data
COPY eval eval
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install build && python -m build --wheel --outdir /dist .

FROM python:3.12-slim
ARG EXTRAS=quickstart
ARG PIP_FLAGS=
RUN --mount=type=bind,from=build,source=/dist,target=/dist --mount=type=cache,target=/root/.cache/pip \
    pip install ${PIP_FLAGS} "$(echo /dist/vlkit-*.whl)[${EXTRAS}]"
# Whoever the container runs as (docker run --user) finds a home for caches, and a name.
RUN mkdir -m 1777 -p /home/vlkit /work
ENV HOME=/home/vlkit USER=vlkit
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["vlkit"]
CMD ["--help"]
