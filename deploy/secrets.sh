#!/bin/sh
# Makes every secret that docker-compose.yml asks for, in the file `.env` beside it (or the file named here). What
# stands in it already is kept, so it may be run again after an update that asks for more.
#   deploy/secrets.sh [FILE]
set -eu
file=${1:-$(dirname "$0")/../.env}
umask 077
touch "$file"
chmod 600 "$file"
for name in POSTGRES_PASSWORD DB_OWNER_PASSWORD DB_INGEST_PASSWORD DB_CONSOLE_PASSWORD DB_WORKER_PASSWORD \
    REDIS_PASSWORD BROKER_MIGRATE_PASSWORD BROKER_GATEWAY_PASSWORD BROKER_WORKER_PASSWORD; do
    if ! grep -q "^$name=." "$file"; then
        # Hexadecimal: it needs no escaping in a URL, a shell, an ACL or JSON.
        printf '%s=%s\n' "$name" "$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')" >> "$file"
        echo "made $name"
    fi
done
