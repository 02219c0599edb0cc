#!/bin/sh
# Stands in for tini, which the build would have to download.
shift
exec "$@"
