#!/bin/sh
# Starts RabbitMQ with the three passwords of the environment put into the definitions, each time anew: what the
# secrets say is what counts, at the first start and after each change. For the container; a broker that runs
# already is set up by setup.sh.
set -eu
: "${MIGRATE_PASSWORD:?make it with deploy/secrets.sh}" "${GATEWAY_PASSWORD:?}" "${WORKER_PASSWORD:?}"
template=${DEFINITIONS_TEMPLATE:-/etc/rabbitmq/definitions.json.template}
definitions=${DEFINITIONS:-/var/lib/rabbitmq/definitions.json}
umask 077
sed -e "s/@MIGRATE_PASSWORD@/$MIGRATE_PASSWORD/" -e "s/@GATEWAY_PASSWORD@/$GATEWAY_PASSWORD/" \
    -e "s/@WORKER_PASSWORD@/$WORKER_PASSWORD/" "$template" > "$definitions"
if [ "$(id -u)" = 0 ]; then
    chown rabbitmq "$definitions"
fi
exec "${1:-docker-entrypoint.sh}" rabbitmq-server
