#!/bin/sh
# Starts Redis with the gateway's password of the environment (REDIS_PASSWORD) put into the ACL. Arguments go on
# to redis-server. ACL_TEMPLATE and CONFIG name other files than those of the container.
set -eu
: "${REDIS_PASSWORD:?make it with deploy/secrets.sh}"
template=${ACL_TEMPLATE:-/etc/redis/users.acl.template}
umask 077
# Redis keeps the digest alone; the password itself is on no disk of this container.
digest=$(printf %s "$REDIS_PASSWORD" | sha256sum | cut -d ' ' -f 1)
acl=$(mktemp "${TMPDIR:-/tmp}/users.XXXXXX")
sed "s/@PASSWORD_SHA256@/$digest/" "$template" > "$acl"
if [ "$(id -u)" = 0 ] && id redis > /dev/null 2>&1 && command -v gosu > /dev/null; then
    chown redis "$acl"
    exec gosu redis redis-server "${CONFIG:-/etc/redis/redis.conf}" --aclfile "$acl" "$@"
fi
exec redis-server "${CONFIG:-/etc/redis/redis.conf}" --aclfile "$acl" "$@"
