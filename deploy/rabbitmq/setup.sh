#!/bin/sh
# The vhost and the three users of Trueup on a broker that runs already. Passwords come from the environment:
#   MIGRATE_PASSWORD=… GATEWAY_PASSWORD=… WORKER_PASSWORD=… ./setup.sh
# RABBITMQCTL names another command than `rabbitmqctl`. Running it again sets everything again.
set -eu
ctl=${RABBITMQCTL:-rabbitmqctl}

$ctl list_vhosts --quiet --no-table-headers | grep -qx trueup || $ctl add_vhost trueup

user() { # name, password, configure, write, read
    if $ctl list_users --quiet --no-table-headers | cut -f1 | grep -qx "$1"; then
        $ctl change_password "$1" "$2"
    else
        $ctl add_user "$1" "$2"
    fi
    $ctl set_permissions -p trueup "$1" "$3" "$4" "$5"
}

# Declares exchanges and queues, and nothing of anybody else's.
user trueup_migrate "$MIGRATE_PASSWORD" '^trueup\.' '^trueup\.' '^trueup\.'
# The public process can hand reports in. It cannot read one, nor a dead letter.
user trueup_gateway "$GATEWAY_PASSWORD" '^$' '^trueup\.events$' '^$'
# Takes reports, sets dead ones aside, and brings them back (redrive).
user trueup_worker "$WORKER_PASSWORD" '^$' '^trueup\.(events|dead)$' '^trueup\.events(\.overflow|\.parked|\.dead)?$'
