# The encoder: torch, sam2, the demo model. Build from the repository's root.
#   TORCH_ARGS   arguments for installing torch, such as "--index-url https://download.pytorch.org/whl/cpu" for a CPU;
#                the default build is the CUDA one
ARG PYTHON_IMAGE=python:3.11-slim@sha256:9c900dea9e8fb7e16277c179b555cc72d29a352dbc33cff48ad5a0412fd5bfc7

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_ARGS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
COPY deploy/docker/locks/build.txt deploy/docker/locks/encoder.txt /locks/
RUN python -m venv /opt/tools && /opt/tools/bin/pip install --require-hashes --only-binary :all: -r /locks/build.txt
RUN python -m venv /opt/venv && /opt/venv/bin/pip install ${TORCH_ARGS} torch==2.13.0 torchvision==0.28.0
# sam2 is built here, and its build wants torch: without isolation it finds the one above.
RUN /opt/venv/bin/pip install --require-hashes --no-deps -r /locks/build.txt \
    && SAM2_BUILD_CUDA=0 /opt/venv/bin/pip install --require-hashes --no-deps --no-build-isolation -r /locks/encoder.txt
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY clients clients
COPY services services
RUN rm -rf services/decoder/maskwire_decoder/* clients/web/maskwire_web/* clients/adapters/maskwire_adapters/* \
    && /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheels ./clients/python . \
    && /opt/venv/bin/pip install --no-deps --no-index /wheels/*.whl \
    && /opt/tools/bin/cyclonedx-py environment --of JSON -o /opt/venv/sbom.json /opt/venv/bin/python

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/venv /opt/venv
RUN install -d -o 10001 -g 10001 /models /cache
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    MASKWIRE_HOST=0.0.0.0 MASKWIRE_PORT=50051 MASKWIRE_METRICS_PORT=9464 \
    MASKWIRE_MODELS=/models MASKWIRE_CACHE=/cache
USER 10001:10001
EXPOSE 50051 9464
# The first start exports the model's decoder, which takes some seconds.
HEALTHCHECK --interval=5s --timeout=5s --start-period=120s --retries=3 CMD ["maskwire", "status", "encoder"]
ENTRYPOINT ["python", "-m", "maskwire_encoder"]
