# The gateway with the page. Build from the repository's root.
ARG PYTHON_IMAGE=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

FROM ${PYTHON_IMAGE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY deploy/docker/locks/build.txt deploy/docker/locks/gateway.txt /locks/
RUN python -m venv /opt/tools && /opt/tools/bin/pip install --require-hashes --only-binary :all: -r /locks/build.txt
RUN python -m venv --without-pip /opt/venv \
    && /opt/tools/bin/pip --python /opt/venv/bin/python install --require-hashes --only-binary :all: -r /locks/gateway.txt
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY clients clients
COPY services services
RUN rm -rf services/encoder/maskwire_encoder/* services/decoder/maskwire_decoder/* \
    && /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python . \
    && /opt/tools/bin/pip --python /opt/venv/bin/python install --no-deps --no-index /wheels/*.whl \
    && /opt/tools/bin/cyclonedx-py environment --of JSON -o /opt/venv/sbom.json /opt/venv/bin/python \
    && find /opt/venv -type d -name tests -prune -exec rm -rf {} +

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MASKWIRE_HOST=0.0.0.0 MASKWIRE_PORT=9001 MASKWIRE_METRICS_PORT=9464
USER 10001:10001
EXPOSE 9001 9464
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9001/readyz', timeout=4)"]
ENTRYPOINT ["python", "-m", "maskwire_gateway"]
