#!/bin/sh
# A service of a simulated host: a process that lives until it is told to stop, and says so
# once a second in its heartbeat file. It ends by itself when the sandbox that owns the host
# is gone, however that ended.
root=${HEAL_HOST_ROOT:?}
read -r owner <"$root/etc/owner"
mkdir -p "$root/var/lib/$1"
while kill -0 "$owner" 2>/dev/null && [ -d "$root/run" ]; do
    echo "$$" >"$root/var/lib/$1/heartbeat" || exit 1
    sleep 1
done
