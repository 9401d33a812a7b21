#!/bin/sh
# Asks what became of run @RUN@ of heal. Reads, and changes nothing. See src/plan/script.rs.
heal_run='@RUN@'
@TOLD_SCRIPT@(
	if [ -e "$heal_mine" ] || [ -L "$heal_mine" ]; then heal_first 0; fi
	heal_clock=$(date +%s 2>/dev/null)
	case $heal_clock in '' | *[!0-9]*) heal_clock=0 ;; esac
	[ "$heal_clock" -gt @DEADLINE@ ] || heal_short awaited 0 "this host knows nothing of the run, and may still get it"
	heal_short nothing 0 "this host knows nothing of the run, which could not begin any more"
)
exit 0
