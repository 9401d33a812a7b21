) </dev/null >/dev/null 2>&1
heal_rc=$? heal_end=done
# By KILL: TERM could come before a new process has dropped our trap, and be lost. Together, as bash
# tells of the death on its own standard error at either.
{ kill -9 "$heal_watcher"; wait "$heal_watcher"; } 2>/dev/null
# Still on record as at work: the step ended the shell. With 0 the later steps did not fail and
# did not run; that is no success.
if heal_unfinished "$heal_rc" && [ "$heal_rc" -eq 0 ] && [ "$heal_n" -ne @COUNT@ ]; then
	heal_rc=91 heal_end=early
fi
case $(tail -n 1 "$heal_dir/steps") in *' kind=confirm '*) [ "$heal_end" = early ] || heal_rc=0 ;; esac
heal_tell "$heal_end" "$heal_rc"
heal_prune @KEEP@
exit "$heal_rc"
