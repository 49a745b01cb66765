#!/usr/bin/env bash
# Builds the images with buildah, for a machine without a Docker engine. Run as root from the repository's root.
#   BUILD_VOLUMES   more --volume arguments, such as a pip.conf and certificates that this machine's network needs
#   TORCH_ARGS      as of deploy/docker/encoder.Dockerfile
set -euo pipefail
for name in redis envoy decoder gateway encoder; do
  tag=maskwire/$name
  [[ $name == encoder ]] && tag=maskwire/encoder:cpu
  # What was pulled or made before has a tag and no digest.
  bases=$(sed -nE 's/^ARG ([A-Z]+_IMAGE)=([^@]*)@.*/--build-arg \1=\2/p' "deploy/docker/$name.Dockerfile")
  # shellcheck disable=SC2086  # BUILD_VOLUMES and bases are lists of arguments
  buildah bud --isolation chroot --format docker --pull-never --layers ${BUILD_VOLUMES:-} $bases --build-arg TORCH_ARGS="${TORCH_ARGS:-}" \
    --tag "docker.io/$tag" --file "deploy/docker/$name.Dockerfile" . >"${LOGS:-/tmp}/build-$name.log" 2>&1 \
    || { tail -30 "${LOGS:-/tmp}/build-$name.log" >&2; exit 1; }
  echo "built $tag"
done
