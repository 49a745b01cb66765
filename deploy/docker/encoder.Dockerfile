# The encoder: torch, sam2, the demo model. Build from the repository's root.
#   TORCH_ARGS   arguments for installing torch, such as "--index-url URL"; the default build is the CUDA one
ARG PYTHON_IMAGE=python:3.11-slim

FROM ${PYTHON_IMAGE} AS build
ARG TORCH_ARGS=""
RUN python -m venv /opt/venv
ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN pip install ${TORCH_ARGS} torch==2.13.0 torchvision==0.28.0 setuptools wheel
RUN SAM2_BUILD_CUDA=0 pip install --no-build-isolation sam2==1.1.0
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY clients/python clients/python
COPY services services
RUN pip install ".[encoder]"

FROM ${PYTHON_IMAGE}
COPY --from=build /opt/venv /opt/venv
RUN install -d -o 10001 -g 10001 /models /cache
ENV PATH=/opt/venv/bin:$PATH PYTHONUNBUFFERED=1 \
    MASKWIRE_HOST=0.0.0.0 MASKWIRE_PORT=50051 MASKWIRE_MODELS=/models MASKWIRE_CACHE=/cache
USER 10001:10001
EXPOSE 50051
# The first start exports the model's decoder, which takes some seconds.
HEALTHCHECK --interval=5s --timeout=5s --start-period=120s --retries=3 CMD ["maskwire", "status", "encoder"]
ENTRYPOINT ["python", "-m", "maskwire_encoder"]
