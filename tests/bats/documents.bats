#!/usr/bin/env bats
# SPDX-License-Identifier: Apache-2.0
# documents.bats - what manual pages, completions and documents name is there, and the other way round
#
# No cluster: texts and --help are compared.

load helpers

PROGRAMS=(overlayd directoryd ms-migrate ms-sockets)
COMPLETION=$TOP/scripts/completions/overlayd

help_of() { "$1" --help 2>&1 || true; }
options_of() { help_of "$1" | grep -oE -- '(^|[^a-z-])--[a-z][a-z-]+' | grep -oE -- '--[a-z-]+' | sort -u; }
# completed WORD...: what is offered for the last one
completed() {
	local COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMPREPLY=() fn=_${1//-/_}
	"$fn"
	printf '%s\n' "${COMPREPLY[@]}"
}

@test "documents: every option of a program is in its manual page, and is completed" {
	local program option
	for program in "${PROGRAMS[@]}"; do
		[ -n "$(options_of "$program")" ] || fail "$program --help names no option"
		for option in $(options_of "$program"); do
			assert_match "$(tr -d '\\' <"$TOP/docs/man/$program.8" | sed -E 's/Fl -/--/g; s/Fl n , -/--/g; s/ , -/ --/g')" "$option" "$program.8"
			grep -qE -- "$option" "$COMPLETION" || [ "$option" = --help ] || fail "$option of $program is not completed"
		done
	done
}

@test "documents: every command of overlayd is completed, and nothing else" {
	# shellcheck source=/dev/null
	. "$COMPLETION"
	assert_eq "$(completed overlayd "" | sort)" "$(help_of overlayd | awk '/^  [a-z]/ { print $1 }' | sort -u)" "commands"
	assert_eq "$(completed overlayd stop -)" $'--purge\n--force' "stop"
	assert_eq "$(completed ms-sockets -)" $'--json\n--exact' "ms-sockets"
}

@test "documents: every function that a document names is in the code" {
	local name
	for name in $(grep -ohE '\b[a-z][a-z0-9_]+\(\)' "$TOP"/docs/*.md "$TOP/README.md" | tr -d '()' | sort -u); do
		grep -rqw "$name" "$TOP/overlayd" "$TOP/tunstack" "$TOP/directory" "$TOP/tests" || fail "$name() is not in the code"
	done
}

@test "documents: every test that the code names as its guard is there" {
	local path
	for path in $(grep -rhoE 'tests/(unit|bats|fuzz|bench|platform)/[a-z0-9_]+\.(c|bats)' "$TOP/overlayd" "$TOP/tunstack" "$TOP/directory" "$TOP"/docs/*.md | sort -u); do
		[ -e "$TOP/$path" ] || fail "$path is named, and is not there"
	done
}
