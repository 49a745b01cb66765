# The decoder: ONNX Runtime, no torch. Build from the repository's root.
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY clients/python clients/python
COPY services services
# The encoder's weights are not a decoder's business.
RUN rm -rf services/encoder/maskwire_encoder/weights && pip install ".[decoder]"

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 MASKWIRE_HOST=0.0.0.0 MASKWIRE_PORT=50052
USER 10001:10001
EXPOSE 50052
HEALTHCHECK --interval=5s --timeout=5s --start-period=20s --retries=3 CMD ["maskwire", "status", "decoder"]
ENTRYPOINT ["python", "-m", "maskwire_decoder"]
