# The fence: a folder named after the run, which one copy alone can make. In it stand: heal-by, a link
# whose text says which process is at work (a link takes no room on a full disk); result, the verdict
# as it was printed; kept, where the disk is full, a link to the folder that has the result instead;
# work, a link to the folder in which the run works, by which it is told how far a run came that was killed.
heal_prune() ( # $1: how many runs stay, the newest; of those no run older than 30 days
	# What is not surely a run's stays, as does what may still be asked for or repeated.
	cd "$heal_fence" || exit
	heal_i=0
	{
		ls -1t | tail -n "+$(($1 + 1))"
		find . ! -name . -prune -type d -mtime +30 | cut -c 3-
	} | while [ "$heal_i" -lt 50 ] && IFS= read -r heal_o; do
		case $heal_o in '' | -* | *[!A-Za-z0-9_-]* | "$heal_run") continue ;; esac
		[ -d "$heal_o" ] && [ ! -L "$heal_o" ] && [ -O "$heal_o" ] && [ -L "$heal_o/heal-by" ] || continue
		heal_i=$((heal_i + 1))
		[ -n "$(find "$heal_o" -prune -mmin +60)" ] || continue
		heal_at_work "$heal_o" && continue
		heal_k=$(cd -P "$heal_o/kept" && pwd -P) || heal_k=
		case $heal_k in */heal.????????) rm -f "$heal_k/result" && rmdir "$heal_k" ;; esac
		heal_k=$(cd -P "$heal_o/work" && pwd -P) || heal_k=
		case $heal_k in */heal.????????) [ ! -O "$heal_k" ] || rm -rf "$heal_k" ;; esac
		rm -f "$heal_o/result.new" "$heal_o/kept" "$heal_o/work" "$heal_o/result" "$heal_o/heal-by"
		rmdir "$heal_o"
	done
) >/dev/null 2>&1
heal_take() { # makes the fence; where it stands already, that is the end of this copy
	heal_why=$(umask 077 && mkdir "$heal_mine" 2>&1) && return
	if [ -e "$heal_mine" ] || [ -L "$heal_mine" ]; then heal_first @WAIT@; fi
	return 1
}
heal_why="$heal_fence is not a folder of this user's"
[ -d "$heal_fence" ] || heal_why=$(umask 077 && mkdir -p "$heal_fence" 2>&1)
if [ ! -d "$heal_fence" ] || [ ! -O "$heal_fence" ]; then heal_short unfenced 93 "$heal_why; nothing was run"; fi
# On a full disk the runs of the past make room for this one.
heal_take || { heal_prune 0 && heal_take; } || heal_short unfenced 93 "$heal_why; nothing was run"
if ! heal_by "$$" || ! ln -s "$$.$heal_s.$heal_b" "$heal_mine/heal-by" 2>/dev/null; then
	rmdir "$heal_mine"
	heal_short unfenced 93 "$heal_mine cannot be written; nothing was run"
fi
heal_own=yes
heal_clock=$(date +%s 2>/dev/null)
case $heal_clock in '' | *[!0-9]*) heal_short late 92 "the host's clock cannot be read; nothing was run" ;; esac
if [ "$heal_clock" -gt @DEADLINE@ ]; then
	heal_short late 92 "by the host's clock this came $((heal_clock - @DEADLINE@)) s after its deadline; nothing was run"
fi
