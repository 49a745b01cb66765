# The store: Valkey, without persistence, with a memory limit. Build from the repository's root.
#   --passwords   as the first argument: users with passwords, each in a file of a volume (deploy/docker/store-server)
ARG STORE_IMAGE=valkey/valkey:8-alpine@sha256:d2e18f3410b6f616de1417f570fa55261af2898b9c5b2cfb6781ce2373ea43d1
FROM ${STORE_IMAGE}
COPY deploy/docker/valkey.conf deploy/docker/users.acl /etc/maskwire/
COPY deploy/docker/store-server /usr/local/bin/
# A new volume takes the owner of the folder that it is mounted on.
RUN mkdir -p /secrets/store /secrets/encoder /secrets/decoder /secrets/admin && chown -R 999:1000 /secrets
USER 999:1000
EXPOSE 6379
HEALTHCHECK --interval=2s --timeout=2s --retries=15 CMD ["valkey-cli", "ping"]
ENTRYPOINT ["store-server"]
