#!/bin/sh
# Every test, benchmark and fuzz test that a document names exists.
set -eu
cd "$(dirname "$0")/.."
defined=$(grep -rhoE '^func (Test|Fuzz|Benchmark)[A-Za-z0-9_]+' --include='*_test.go' . | cut -d' ' -f2 | sort -u)
missing=$(grep -hoE '\b(Test|Fuzz|Benchmark)[A-Z_][A-Za-z0-9_]*' README.md CONTRIBUTING.md SECURITY.md docs/*.md |
	sort -u | grep -vxF "$defined" || true)
if [ -n "$missing" ]; then
	echo "named in a document, defined nowhere: $missing" >&2
	exit 1
fi
