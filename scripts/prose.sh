#!/usr/bin/env bash
# Checks the form of prose. Comments and Markdown have at most 120 columns, paragraphs of Markdown at most six lines.
# Table rows, headings and code in Markdown have no limit. Reports and documents of others are left out.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8

columns=120 lines=6
not_ours=(':!bench/results' ':!LICENSES' ':!ctl/**/*.proto' ':!tests/python/document.proto')
failed=0

# Prints what it is given, if that is anything, and remembers it.
complain() {
	[ -z "$2" ] || { printf '%s:\n%s\n' "$1" "$2" >&2; failed=1; }
}

# Comments that stand alone on their lines.
comment='^\s*(//|# |/?\*)'
long=$(git grep -nE "^.{$((columns + 1)),}" -- '*.rs' '*.c' '*.h' '*.sh' '*.toml' '*.py' Makefile .ci/run scripts \
	"${not_ours[@]}" | grep -E "^[^:]+:[0-9]+:${comment#^}" || true)
complain "comments of more than $columns columns" "$long"

mapfile -t pages < <(git ls-files '*.md' "${not_ours[@]}")
# shellcheck disable=SC2016 # of awk
found=$(awk -v most="$lines" '
	function end() { if (count > most) print start ": a paragraph of " count " lines"; count = 0 }
	FNR == 1 { end(); code = 0 }
	/^ *```/ { end(); code = !code; next }
	code || /^ *\|/ || /^#/ || /^ *$/ { end(); next }
	/^ *([-*]|[0-9]+\.) / { end() }
	{ if (count++ == 0) start = FILENAME ":" FNR }
	END { end() }
' "${pages[@]}")
complain "paragraphs of more than $lines lines" "$found"
exit "$failed"
