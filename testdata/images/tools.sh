#!/bin/sh
# Installs what building and running the images takes, on Debian or Ubuntu.
# Does nothing, and needs no root, if everything is there.
set -eu

missing=
need() { # COMMAND PACKAGE
	command -v "$1" >/dev/null 2>&1 || missing="$missing $2"
}
need buildah buildah
need conmon conmon
need crun crun
need dockerd docker.io
need docker-registry docker-registry
need groovyc groovy
need java default-jre-headless
need mmdebstrap mmdebstrap
need podman podman
need python3 python3
need qemu-aarch64-static qemu-user-static
need redis-server redis-server
need runc runc
need skopeo skopeo
need unshare util-linux
[ -n "$(find /usr/lib/postgresql -name initdb 2>/dev/null)" ] || missing="$missing postgresql"
python3 -m pip --version >/dev/null 2>&1 || missing="$missing python3-pip"
[ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || missing="$missing debian-archive-keyring"
[ -n "$missing" ] || exit 0

if ! command -v apt-get >/dev/null 2>&1; then
	echo "tools.sh: missing, and no apt-get to install them with:$missing" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "tools.sh: missing; as root: apt-get install$missing" >&2
	exit 1
fi
echo "installing$missing" >&2
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # a list of words
if ! { apt-get -q update && apt-get -qy install --no-install-recommends $missing; } >"$log" 2>&1; then
	tail -n 20 "$log" >&2
	echo "tools.sh: apt-get could not install$missing" >&2
	exit 1
fi
