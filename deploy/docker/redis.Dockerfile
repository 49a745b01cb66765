# The store: Valkey, without persistence, with a memory limit. Build from the repository's root.
ARG STORE_IMAGE=valkey/valkey:8-alpine
FROM ${STORE_IMAGE}
COPY deploy/docker/valkey.conf /etc/valkey.conf
USER 999:1000
EXPOSE 6379
HEALTHCHECK --interval=2s --timeout=2s --retries=15 CMD ["valkey-cli", "ping"]
ENTRYPOINT ["valkey-server", "/etc/valkey.conf"]
