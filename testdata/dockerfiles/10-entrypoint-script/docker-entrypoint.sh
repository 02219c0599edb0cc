#!/bin/sh
set -e

# Migrations would run here.
exec "$@"
