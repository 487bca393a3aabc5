#!/bin/sh
# Compares the Go benchmarks of two commits with benchstat: benchcmp.sh OLD NEW. Each package that has benchmarks in both
# commits runs COUNT times (6), for BENCHTIME each (1s), BENCH (.) selects them by name. Both commits take turns, so
# that what else the machine does meets both.
set -eu

if [ $# -ne 2 ] || [ -z "$1" ] || [ -z "$2" ]; then
	echo "usage: benchcmp.sh OLD NEW, two commits (make benchcmp OLD=main NEW=HEAD)" >&2
	exit 2
fi
old=$1
new=$2
count=${COUNT:-6}
bench=${BENCH:-.}
benchtime=${BENCHTIME:-1s}

root=$(git rev-parse --show-toplevel)
dir=$(mktemp -d)
# shellcheck disable=SC2329 # the trap calls it
clean() {
	git -C "$root" worktree remove --force "$dir/old" 2>/dev/null || true
	git -C "$root" worktree remove --force "$dir/new" 2>/dev/null || true
	rm -rf "$dir"
}
trap clean EXIT
trap 'exit 130' INT TERM

git -C "$root" worktree add --quiet --detach "$dir/old" "$old"
git -C "$root" worktree add --quiet --detach "$dir/new" "$new"

# packages lists the directories of a worktree whose tests have benchmarks, the other modules' excepted.
packages() {
	(cd "$1" && git grep -l '^func Benchmark' -- '*_test.go' ':!bench' ':!e2e' | xargs -r -n 1 dirname | sort -u)
}

packages "$dir/old" >"$dir/old.packages"
packages "$dir/new" >"$dir/new.packages"
for side in old new; do
	mkdir "$dir/$side.bin"
	while read -r package; do
		(cd "$dir/$side/$package" && go test -c -o "$dir/$side.bin/$(echo "$package" | tr / -).test" .)
	done <"$dir/$side.packages"
done

i=0
while [ "$i" -lt "$count" ]; do
	for side in old new; do
		while read -r package; do
			echo "round $((i + 1)) of $count: $side $package" >&2
			(cd "$dir/$side/$package" && "$dir/$side.bin/$(echo "$package" | tr / -).test" -test.run '^$' -test.bench "$bench" \
				-test.benchtime "$benchtime" -test.benchmem -test.timeout 10m) </dev/null >>"$dir/$side.txt"
		done <"$dir/$side.packages"
	done
	i=$((i + 1))
done

cd "$root/bench"
go tool benchstat "old=$dir/old.txt" "new=$dir/new.txt"
