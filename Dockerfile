# The whole of the software, at the versions of requirements.lock. It has been read, not built: no engine was at hand.
#   docker build --tag entpruner . && docker run --rm --volume "$PWD/results:/entpruner/results" entpruner make smoke
# Where there is Apptainer alone: apptainer.def.
FROM python:3.12-slim-bookworm

# Without versions: Debian deletes those that it replaces.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends git make procps \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 entpruner \
    && mkdir /entpruner \
    && chown entpruner:entpruner /entpruner
USER 1000
WORKDIR /entpruner

# The libraries first, in a layer of their own that an edit of the code leaves as it is.
COPY --chown=entpruner:entpruner Makefile requirements.lock pyproject.toml README.md LICENSE ./
COPY --chown=entpruner:entpruner entpruner/__init__.py entpruner/__init__.py
RUN make .venv/ready

COPY --chown=entpruner:entpruner . .
RUN touch .venv/ready
ENV PATH=/entpruner/.venv/bin:$PATH
CMD ["make", "smoke"]
