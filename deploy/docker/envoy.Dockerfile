# Envoy with the routes to encoders, decoders and gateway. Build from the repository's root.
ARG ENVOY_IMAGE=envoyproxy/envoy:v1.38.3@sha256:5f7c43e1147412fdb3af578c651c67478a3df818eae89d2261e707e06c209cdb
FROM ${ENVOY_IMAGE}
COPY deploy/kubernetes/base/envoy.yaml /etc/maskwire/envoy.yaml
USER 10001:10001
EXPOSE 50051 50052 50053 9001
# It has no tool that asks over HTTP; the shell's sockets do.
HEALTHCHECK --interval=2s --timeout=2s --retries=15 CMD ["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9901 && printf 'GET /ready HTTP/1.1\\r\\nHost: envoy\\r\\nConnection: close\\r\\n\\r\\n' >&3 && grep -q LIVE <&3"]
ENTRYPOINT ["envoy", "-c", "/etc/maskwire/envoy.yaml", "--drain-time-s", "20", "--log-level", "warning"]
