#!/usr/bin/env bash
# Stands in for python:3.11-slim-bookworm where no image registry can be reached: a minimal Debian
# with Python from Debian's packages, and this machine's certificates and pip settings.
#
# usage, as root: containers/base-without-registry.sh [IMAGE]
set -euo pipefail

image=${1:-python:3.11-slim-bookworm}
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

debootstrap --variant=minbase \
    --include=python3,python3-venv,python3-pip,libpython3.11,ca-certificates \
    bookworm "$root/base" >"$root/log" || { tail -n 20 "$root/log" >&2; exit 1; }
base=$root/base
rm -f "$base"/usr/lib/python3*/EXTERNALLY-MANAGED
rm -rf "$base"/var/cache/apt/* "$base"/var/lib/apt/lists/* "$base"/usr/share/{doc,man,locale}/*
for name in python python3; do ln -s /usr/bin/python3 "$base/usr/local/bin/$name"; done
ln -s /usr/bin/pip3 "$base/usr/local/bin/pip"

# An environment's pip has a list of authorities of its own, and fails with a misleading "No matching
# distribution found" where a proxy's is missing from it.
cp /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/certs/ca-certificates.crt"
cat >"$base/etc/pip.conf" <<'SETTINGS'
[global]
cert = /etc/ssl/certs/ca-certificates.crt
disable-pip-version-check = true
SETTINGS

tar -C "$base" --one-file-system --exclude=./proc --exclude=./sys --exclude=./dev -c . |
    docker import --change 'CMD ["python3"]' - "$image" >/dev/null
echo "$image stands in for the official image" >&2
