#!/bin/sh
# The operator's commands of a simulated host. One program under several names (service,
# systemctl, PROC_CHECK, df, pgrep, pkill, ...), which really start, stop and inspect this
# host's processes and nothing else on the machine.
root=${HEAL_HOST_ROOT:?this command belongs to a simulated host}
self=${0##*/}

known() { [ -e "$root/etc/services/$1" ]; }

# Sets pid and st (a letter as in ps) when NAME's process is alive; fails otherwise.
alive() {
    pid='' st=''
    [ -r "$root/run/$1.pid" ] && read -r pid <"$root/run/$1.pid" || return 1
    if [ -d /proc/self ]; then
        line=$(cat "/proc/$pid/stat" 2>/dev/null) || return 1
        # A number that was used again by a stranger is not our process.
        tr '\0' ' ' <"/proc/$pid/cmdline" 2>/dev/null | grep -qF "$root/" || return 1
        st=${line##*) }
        st=${st%% *}
    else
        ps -o args= -p "$pid" 2>/dev/null | grep -qF "$root/" || return 1
        st=$(ps -o stat= -p "$pid" 2>/dev/null | cut -c1)
    fi
    case $st in '' | Z* | X*) return 1 ;; esac
}

# Signals NAME's process group (its own, where setsid made one).
hit() { kill -s "$1" -- "-$pid" 2>/dev/null || kill -s "$1" "$pid" 2>/dev/null; }

start() {
    alive "$1" && return 0
    if [ -e "$root/etc/broken/$1" ]; then
        echo "$1: failed to start: bind() to 0.0.0.0 failed (98: Address already in use)" >&2
        return 1
    fi
    rm -f "$root/var/lib/$1/heartbeat"
    if command -v setsid >/dev/null 2>&1; then
        setsid nohup sh "$root/libexec/worker" "$1" </dev/null >/dev/null 2>&1 &
    else
        nohup sh "$root/libexec/worker" "$1" </dev/null >/dev/null 2>&1 &
    fi
    echo "$!" >"$root/run/$1.pid.new" && mv "$root/run/$1.pid.new" "$root/run/$1.pid"
    n=0
    until [ -e "$root/var/lib/$1/heartbeat" ]; do
        n=$((n + 1))
        [ "$n" -le 200 ] || { echo "$1: did not come up" >&2; return 1; }
        sleep 0.05
    done
    # A replica that starts catches up with its primary.
    [ ! -e "$root/var/lib/$1/lag_seconds" ] || echo 0 >"$root/var/lib/$1/lag_seconds"
}

stop() {
    alive "$1" || { rm -f "$root/run/$1.pid"; return 0; }
    hit TERM
    hit CONT
    n=0
    while alive "$1"; do
        n=$((n + 1))
        [ "$n" -le 40 ] || hit KILL
        [ "$n" -le 80 ] || { echo "$1: pid $pid does not stop" >&2; return 1; }
        sleep 0.05
    done
    rm -f "$root/run/$1.pid"
}

status() {
    if alive "$1"; then
        case $st in
        T*) echo "$1 is running (pid $pid), stopped by a signal" ;;
        *) echo "$1 is running (pid $pid)" ;;
        esac
    else
        echo "$1 is not running"
        return 3
    fi
}

restart() { stop "$1" && start "$1"; }

service_command() {
    [ $# -eq 2 ] || { echo "usage: service NAME start|stop|restart|status" >&2; exit 2; }
    known "$1" || { echo "$1: unrecognized service" >&2; exit 1; }
    case $2 in
    start | stop | restart | status) "$2" "$1" ;;
    *) echo "usage: service NAME start|stop|restart|status" >&2; exit 2 ;;
    esac
}

systemctl_command() {
    quiet='' verb='' unit=''
    for word; do
        case $word in
        -q | --quiet) quiet=1 ;;
        -*) ;;
        *) if [ -z "$verb" ]; then verb=$word; else unit=${word%.service}; fi ;;
        esac
    done
    [ -n "$unit" ] || { echo "Too few arguments." >&2; exit 1; }
    if ! known "$unit"; then
        case $verb in
        is-active) [ -n "$quiet" ] || echo inactive; exit 4 ;;
        status) echo "Unit $unit.service could not be found." >&2; exit 4 ;;
        *) echo "Failed to $verb $unit.service: Unit $unit.service not found." >&2; exit 5 ;;
        esac
    fi
    case $verb in
    start | restart)
        "$verb" "$unit" || {
            echo "Job for $unit.service failed because the control process exited with error code." >&2
            exit 1
        }
        ;;
    stop) stop "$unit" ;;
    is-active)
        if alive "$unit"; then word=active code=0; else word=inactive code=3; fi
        [ -n "$quiet" ] || echo "$word"
        exit "$code"
        ;;
    status)
        if alive "$unit"; then
            printf '* %s.service\n   Active: active (running)\n Main PID: %s\n' "$unit" "$pid"
        else
            printf '* %s.service\n   Active: inactive (dead)\n' "$unit"
            exit 3
        fi
        ;;
    *) echo "Unknown command verb $verb." >&2; exit 1 ;;
    esac
}

# PROC_CHECK [--ignore-check] NAME: how the process is. With --ignore-check the monitor leaves
# it alone for some seconds while it is being restarted, and its being down is no failure.
proc_check() {
    ignore=''
    [ "${1:-}" != --ignore-check ] || { ignore=1; shift; }
    [ $# -eq 1 ] || { echo "usage: PROC_CHECK [--ignore-check] NAME" >&2; exit 2; }
    known "$1" || { echo "PROC_CHECK: $1: no such process is configured" >&2; exit 2; }
    [ -z "$ignore" ] || echo muted >"$root/run/$1.muted"
    status "$1" || [ -n "$ignore" ] || exit 1
}

# The disk of etc/disks ("MOUNT KIB" a line) that holds the path, or nothing.
disk_of() {
    path=$1
    case $path in "$root"/*) path=${path#"$root"} ;; esac
    found='' size=''
    [ -r "$root/etc/disks" ] || return 1
    while read -r mount kib; do
        case $path/ in "$mount"/*) [ ${#mount} -lt ${#found} ] || found=$mount size=$kib ;; esac
    done <"$root/etc/disks"
    [ -n "$found" ]
}

df_command() {
    path='' pcent='' machine=''
    for word; do
        case $word in
        --output=pcent) pcent=1 ;;
        -*) ;;
        *) path=$word ;;
        esac
    done
    if [ -z "$path" ] || ! disk_of "$path"; then
        for machine in /bin/df /usr/bin/df; do [ -x "$machine" ] && exec "$machine" "$@"; done
        exit 127
    fi
    bytes=$(find "$root$found" -type f -exec wc -c {} \; 2>/dev/null | awk '{ n += $1 } END { print n + 0 }')
    used=$(((bytes + 1023) / 1024))
    [ "$used" -le "$size" ] || used=$size
    percent=$(((used * 100 + size - 1) / size))
    if [ -n "$pcent" ]; then
        printf 'Use%%\n%3d%%\n' "$percent"
    else
        echo 'Filesystem     1024-blocks      Used Available Capacity Mounted on'
        printf '/dev/simulated %11d %9d %9d %7d%% %s\n' "$size" "$used" "$((size - used))" "$percent" "$found"
    fi
}

# pgrep NAME, pkill [-SIGNAL] NAME, with this host's services alone.
processes() {
    signal=TERM name=''
    for word; do
        case $word in
        -x | -f | -c | -l) ;;
        -*) signal=${word#-} ;;
        *) name=$word ;;
        esac
    done
    known "$name" && alive "$name" || exit 1
    case $self in pkill | killall) hit "$signal" ;; *) echo "$pid" ;; esac
}

case $self in
service) service_command "$@" ;;
systemctl) systemctl_command "$@" ;;
PROC_CHECK) proc_check "$@" ;;
df) df_command "$@" ;;
pgrep | pkill | killall) processes "$@" ;;
reboot | shutdown | poweroff | halt | init)
    echo "$self: a simulated host is part of a real machine: refused" >&2
    exit 1
    ;;
hostctl) # what only the sandbox itself does
    case $1 in
    start | stop | restart | status) "$1" "$2" ;;
    wedge) # a signal is sent before it is taken: wait until it shows
        alive "$2" && hit STOP
        until alive "$2" && case $st in T*) true ;; *) false ;; esac; do
            n=$((${n:-0} + 1))
            [ "$n" -le 100 ] || { echo "$2 does not stop" >&2; exit 1; }
            sleep 0.02
        done
        ;;
    release) alive "$2" && hit CONT ;;
    down) for file in "$root"/etc/services/*; do [ ! -e "$file" ] || stop "${file##*/}"; done ;;
    up) for file in "$root"/etc/services/*; do [ ! -e "$file" ] || start "${file##*/}" || exit 1; done ;;
    *) exit 2 ;;
    esac
    ;;
*) echo "$self: unknown" >&2; exit 127 ;;
esac
