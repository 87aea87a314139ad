#!/bin/sh
# For the postgres image's /docker-entrypoint-initdb.d: makes the roles with the passwords of the environment.
set -eu
psql -v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
    -v owner="$DB_OWNER_PASSWORD" -v ingest="$DB_INGEST_PASSWORD" \
    -v console="$DB_CONSOLE_PASSWORD" -v worker="$DB_WORKER_PASSWORD" \
    -f /roles.sql
