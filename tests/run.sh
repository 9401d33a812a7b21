#!/bin/sh
# The one test command. Installs what the tests need and this machine lacks (Debian's chromium and
# its driver, for the test of the sandbox's page; busybox, as one of the shells that the script on the
# hosts has to run in; make, for the allocator; the PostgreSQL server, which the tests start in folders
# of their own), then runs all tests. Arguments go to `cargo test`.
set -eu
cd "$(dirname "$0")/.."

missing=
command -v make >/dev/null 2>&1 || missing="$missing make"
[ -x /usr/bin/chromium ] || missing="$missing chromium"
[ -x /usr/bin/chromedriver ] || missing="$missing chromium-driver"
command -v busybox >/dev/null 2>&1 || missing="$missing busybox"
# Debian keeps the server's programs out of PATH, by version.
postgres=
for found in /usr/lib/postgresql/*/bin/initdb; do
    [ ! -x "$found" ] || postgres=$found
done
[ -n "$postgres" ] || command -v initdb >/dev/null 2>&1 || missing="$missing postgresql"

if [ -n "$missing" ]; then
    if ! command -v apt-get >/dev/null 2>&1; then
        echo "error: the tests need$missing, and this system has no apt-get" >&2
        echo "hint: install Chromium as /usr/bin/chromium and its driver as /usr/bin/chromedriver" >&2
        exit 1
    fi
    if [ "$(id -u)" -eq 0 ]; then
        as_root=
    elif command -v sudo >/dev/null 2>&1; then
        as_root=sudo
    else
        echo "error: the tests need$missing, and installing them needs root" >&2
        echo "hint: as root: apt-get install$missing" >&2
        exit 1
    fi
    echo "installing$missing" >&2
    # The programs are wanted, not a server that runs: Debian's package would make one.
    common=/etc/postgresql-common
    case $missing in
    *postgresql*)
        if [ ! -e "$common/createcluster.conf" ]; then
            $as_root mkdir -p "$common"
            echo 'create_main_cluster = false' | $as_root tee "$common/createcluster.conf" >/dev/null
        fi
        ;;
    esac
    # $as_root and $missing are words to be split.
    install() { $as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $missing; }
    # The package lists may be absent or old: they are fetched only when the first try fails.
    if ! install >/dev/null 2>&1; then
        $as_root apt-get update
        install
    fi
fi

exec cargo test --locked "$@"
