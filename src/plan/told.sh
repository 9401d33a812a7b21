heal_fence=@FENCE@
heal_mine=$heal_fence/$heal_run
heal_now() { # milliseconds; /proc/uptime needs no process and no correct clock
	if IFS=' ' read -r heal_t _ 2>/dev/null </proc/uptime; then
		heal_t=$((${heal_t%.*} * 1000 + 1${heal_t#*.}0 - 1000))
	else
		heal_t=$(($(date +%s 2>/dev/null || echo 0) * 1000))
	fi
}
heal_by() { # $1: a process; heal_b tells it from every other there ever was. Fails when it is gone
	kill -0 "$1" 2>/dev/null || return 1
	heal_s='' heal_b=''
	if IFS= read -r heal_s 2>/dev/null <"/proc/$1/stat"; then
		heal_s=${heal_s##*\) }
		case $heal_s in [ZX]*) return 1 ;; esac
		IFS= read -r heal_b 2>/dev/null </proc/sys/kernel/random/boot_id
		set -- "$1" $heal_s
		shift 20 # to word 22 of the line: when it began (proc_pid_stat(5))
		heal_s=$1
	fi
}
heal_at_work() { # $1: a run's folder; whether the copy that made it is still there. No heal_l: it did not say who it is
	heal_l=$(ls -ld "$1/heal-by" 2>/dev/null) || return 1
	heal_l=${heal_l##* -> } heal_p=${heal_l%%.*}
	case $heal_p in '' | *[!0-9]*) return 1 ;; esac
	heal_by "$heal_p" && [ "$heal_l" = "$heal_p.$heal_s.$heal_b" ]
}
heal_short() { # $1: how it ended, $2: exit code, $3: for people. An end at which this copy ran nothing
	heal_text="heal/1 run=$heal_run end=$1 exit=$2
heal: $3
heal/1 $heal_run end"
	if [ -n "$heal_own" ]; then # it is the run's result then
		(umask 077 && printf '%s\n' "$heal_text" >"$heal_mine/result.new") 2>/dev/null &&
			mv -f "$heal_mine/result.new" "$heal_mine/result" 2>/dev/null
	fi
	printf '%s\n' "$heal_text"
	exit "$2"
}
heal_half() { # the verdict of a copy that ended half-way: its steps so far. Fails where nothing is left of it
	heal_d=$(cd -P "$heal_mine/work" && pwd -P) && [ -O "$heal_d" ] && [ -f "$heal_d/steps" ] || return 1
	case $heal_d in */heal.????????) ;; *) return 1 ;; esac
	echo "heal/1 run=$heal_run end=interrupted exit=94"
	head -c 6000 "$heal_d/steps"
	if read -r heal_n heal_w _ <"$heal_d/now"; then echo "heal/1 step=$heal_n kind=$heal_w exit=unknown ms=unknown"; fi
	echo "heal: this run was ended half-way on the host"
	heal_n=0
	while [ -e "$heal_d/$((heal_n + 1))" ]; do heal_n=$((heal_n + 1)); done
	heal_i=0
	while [ "$heal_i" -lt "$heal_n" ]; do
		heal_i=$((heal_i + 1))
		heal_o=$heal_d/$heal_i
		[ -s "$heal_o" ] || [ -s "$heal_o.tail" ] || continue
		echo "heal/1 $heal_run output of step=$heal_i"
		heal_c=$(($(cat "$heal_o.head" "$heal_o.tail" "$heal_o" | wc -c) - 14000 / heal_n))
		[ "$heal_c" -le 0 ] || printf '[heal: %s bytes left out]\n' "$heal_c"
		cat "$heal_o.head" "$heal_o.tail" "$heal_o" | tail -c "$((14000 / heal_n))" | tr -d '\000'
		echo
	done
	echo "heal/1 $heal_run end"
} 2>/dev/null
heal_first() { # $1: milliseconds to wait. The verdict of the copy that made the fence, as it printed it
	if [ -L "$heal_mine" ] || [ ! -d "$heal_mine" ] || [ ! -O "$heal_mine" ]; then
		heal_short unfenced 93 "$heal_mine is not a folder of this user's; this copy ran nothing"
	fi
	heal_now
	heal_since=$heal_t
	while :; do
		# First whether it is at work: then what it left before it ended is seen.
		heal_live=yes
		heal_at_work "$heal_mine" || heal_live=
		for heal_r in "$heal_mine/result" "$heal_mine/kept/result"; do
			[ -f "$heal_r" ] && [ -O "$heal_r" ] && read -r _ heal_w _ heal_x <"$heal_r" || continue
			[ "$heal_w" = "run=$heal_run" ] || continue
			cat "$heal_r"
			heal_x=${heal_x#exit=}
			case $heal_x in '' | *[!0-9]*) heal_x=94 ;; esac
			exit "$heal_x"
		done
		heal_now
		heal_s=$((heal_t - heal_since))
		if [ -n "$heal_live" ]; then
			[ "$heal_s" -lt "$1" ] ||
				heal_short working 94 "an earlier copy of this run is still at work; this copy ran nothing"
		elif [ -n "$heal_l" ] || [ "$heal_s" -ge 3000 ]; then # it had time to say who it is
			heal_half && exit 94
			heal_short interrupted 94 "an earlier copy of this run ended half-way; this copy ran nothing"
		fi
		if [ "$heal_s" -lt 5000 ]; then sleep 0.1 || sleep 1; else sleep 1; fi
	done 2>/dev/null
}
heal_own=
