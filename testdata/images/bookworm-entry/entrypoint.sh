#!/bin/sh
set -e

if [ -n "$MIGRATE" ]; then
	python -m flask db upgrade
fi

exec "$@"
