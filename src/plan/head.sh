#!/bin/sh
# Run @RUN@ of heal: the declared steps in one shell, up to the first that fails. The verdict is
# printed first, as SSM keeps only the head of what is printed. See src/plan/script.rs.
heal_run='@RUN@'
@FENCE_SCRIPT@# A private folder with room in it. Memory first: a cure for a full disk has to run on a full disk.
heal_dir=
for heal_d in /run /dev/shm "${TMPDIR:-/tmp}" /var/tmp; do
	heal_dir=$(umask 077 && mktemp -d "$heal_d/heal.XXXXXXXX" 2>/dev/null) || continue
	head -c 1048576 /dev/zero 2>/dev/null >"$heal_dir/room" && rm "$heal_dir/room" && : >"$heal_dir/steps" && break
	rm -rf "$heal_dir"
	heal_dir=
done
if [ -z "$heal_dir" ]; then
	heal_short unprepared 90 "no private folder with 1 MB of room in /run, /dev/shm, /tmp or /var/tmp; nothing was run"
fi
ln -s "$heal_dir" "$heal_mine/work" 2>/dev/null
heal_watch() { # cuts the middle out of a flood of output before it fills the disk
	while kill -0 "$$" && { sleep 0.2 || sleep 1; }; do
		read -r heal_n _ <"$heal_dir/now" || continue
		heal_o=$heal_dir/$heal_n
		[ "$(wc -c <"$heal_o")" -gt 1048576 ] || continue
		[ -e "$heal_o.head" ] || { head -c @HEAD@ "$heal_o" >"$heal_o.part" && mv "$heal_o.part" "$heal_o.head"; }
		tail -c @TAIL@ "$heal_o" >"$heal_o.part" && mv "$heal_o.part" "$heal_o.tail" && : >"$heal_o"
	done
}
heal_output() { # $1: a step's file; its head and its tail
	if [ -e "$1.head" ]; then
		cat "$1.head"
		printf '\n[heal: a flood of output; its middle is left out]\n'
		cat "$1.tail" "$1" 2>/dev/null | tail -c @TAIL@
	elif [ "$(wc -c <"$1")" -le @BOTH@ ]; then
		cat "$1"
	else
		head -c @HEAD@ "$1"
		printf '\n[heal: %s bytes left out]\n' "$(($(wc -c <"$1") - @BOTH@))"
		tail -c @TAIL@ "$1"
	fi | tr -d '\000'
}
heal_report() { # $1: how it ended, $2: exit code
	echo "heal/1 run=$heal_run end=$1 exit=$2"
	cat "$heal_dir/steps"
	for heal_n in @NUMBERS@; do
		[ -s "$heal_dir/$heal_n" ] || [ -s "$heal_dir/$heal_n.head" ] || continue
		echo "heal/1 $heal_run output of step=$heal_n"
		heal_output "$heal_dir/$heal_n"
		echo
	done
	echo "heal/1 $heal_run end"
}
heal_leave() { # $1: a file; it becomes the run's result, whole or not at all
	if (umask 077 && cp "$1" "$heal_mine/result.new") && mv -f "$heal_mine/result.new" "$heal_mine/result"; then
		return
	fi
	# No room there: it stays where it is, beside the folder that goes, and a link says where.
	rm -f "$heal_mine/result.new"
	heal_k=$(umask 077 && mktemp -d "${heal_dir%/*}/heal.XXXXXXXX") &&
		ln "$1" "$heal_k/result" && ln -s "$heal_k" "$heal_mine/kept"
} 2>/dev/null
heal_tell() { # $1: how it ended, $2: exit code. Left for other copies first, printed then
	trap '' TERM INT HUP
	if heal_report "$1" "$2" 2>/dev/null >"$heal_dir/result"; then
		heal_leave "$heal_dir/result"
		rm -f "$heal_mine/work"
		cat "$heal_dir/result"
	else
		heal_report "$1" "$2"
	fi
}
heal_unfinished() { # $1: exit code of the step that was at work, if any was
	[ -s "$heal_dir/now" ] || return 1
	read -r heal_n heal_kind heal_since <"$heal_dir/now"
	heal_now
	echo "heal/1 step=$heal_n kind=$heal_kind exit=$1 ms=$((heal_t - heal_since))" >>"$heal_dir/steps"
}
heal_begin() { # $1: number, $2: kind. What cannot be recorded is not run
	heal_now
	heal_since=$heal_t heal_n=$1 heal_kind=$2
	{ echo "$1 $2 $heal_t" >"$heal_dir/now" && : >"$heal_dir/$1"; } || exit 90
}
heal_ended() { # $1: exit code
	heal_now
	echo "heal/1 step=$heal_n kind=$heal_kind exit=$1 ms=$((heal_t - heal_since))" >>"$heal_dir/steps" || exit 90
	: >"$heal_dir/now"
	return "$1"
}
: >"$heal_dir/now"
heal_watch </dev/null >/dev/null 2>&1 &
heal_watcher=$!
trap 'rm -rf "$heal_dir"' EXIT
trap 'heal_unfinished unknown; heal_tell terminated 143; exit 143' TERM INT HUP
( # the one shell of all steps; what they leave behind holds none of this script's outputs
