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

# in_code NAME: a whole word there, or the beginning of one when it ends in "_"
in_code() {
	local end='\b'
	[[ $1 != *_ ]] || end=''
	grep -rqE "\\b$1$end" "$TOP/overlayd" "$TOP/tunstack" "$TOP/directory" "$TOP/tests"
}

@test "documents: every function that a document names is in the code" {
	local name
	for name in $(grep -ohE '\b[a-z][a-z0-9_]+\(\)' "$TOP"/docs/*.md "$TOP/README.md" | tr -d '()' | sort -u); do
		in_code "$name" || fail "$name() is not in the code"
	done
	# these two follow a packet and a migration without saying which names are functions; net.ipv4.NAME is the kernel's
	for name in $(grep -ohE '(^|[^.a-z0-9_-])[a-z][a-z0-9]*_[a-z0-9_]+' "$TOP"/docs/{architecture,migration}.md | grep -oE '[a-z0-9_]+$' | sort -u); do
		in_code "$name" || fail "$name is not in the code"
	done
}

@test "documents: every file that a document names is there" {
	local path
	for path in $(grep -ohE '[A-Za-z0-9_./-]*[A-Za-z0-9_]\.(c|h|bats|bash|py|md|proto|example)\b' "$TOP"/docs/*.md "$TOP/README.md" | sort -u); do
		find "$TOP" -path "$TOP/.git" -prune -o -path "*/$path" -print | grep -q . || fail "$path is named, and is not there"
	done
}

@test "documents: every test that the code names as its guard is there" {
	local path
	for path in $(grep -rhoE 'tests/(unit|bats|fuzz|bench)/[a-z0-9_]+\.(c|bats)' "$TOP/overlayd" "$TOP/tunstack" "$TOP/directory" "$TOP"/docs/*.md | sort -u); do
		[ -e "$TOP/$path" ] || fail "$path is named, and is not there"
	done
}

# `test_x [words, words]`: in tests/unit/test_x.c, each is a part of a test's name
@test "documents: every test that guards an invariant is there" {
	cat >"$BATS_TEST_TMPDIR/guards.py" <<-'PY'
		import os, re, sys
		top, seen = sys.argv[1], 0
		for line in open(top + "/docs/invariants.md"):
		    cells = [c.strip() for c in line.strip().strip("|").split("|")]
		    if not re.match(r"[A-Z]+-[0-9]+$", cells[0]):
		        continue
		    for name, words in re.findall(r"\b((?:test|fuzz)_[a-z_]+|[a-z_0-9]+\.bats)(?:\.c)?(?: \[([^\]]*)\])?", cells[-1]):
		        paths = [p for p in (top + "/tests/bats/" + name, top + "/tests/unit/" + name + ".c", top + "/tests/fuzz/" + name + ".c") if os.path.exists(p)]
		        assert paths, "%s: no %s" % (cells[0], name)
		        text = open(paths[0]).read()
		        tests = re.findall(r'@test "(.*)" \{', text) + re.findall(r"static void (test_\w+)", text)
		        for part in words.split(", ") if words else []:
		            assert any(part in t for t in tests), "%s: %s has no test [%s]" % (cells[0], name, part)
		        seen += 1
		assert seen > 50, "only %d guards" % seen
	PY
	run_ok "${PYTHON:-python3}" "$BATS_TEST_TMPDIR/guards.py" "$TOP"
}
