#!/usr/bin/env bash
# Runs the fault matrix and prints how long the recovery from each fault took: from the fault's end to the next signature, in milliseconds.
set -euo pipefail
cd "$(dirname "$0")/.."

figures=target/tmp
rm -f "$figures"/fault-matrix-*.tsv
cargo test --locked --quiet --test fault_matrix

# Columns: isolation, moment, fault, milliseconds.
table() {
    cat "$figures"/fault-matrix-*.tsv | awk -F'\t' -v key="$1" '
        { k = key == "fault" ? $3 : $1 ", " $2; n[k]++; v[k, n[k]] = $4 }
        END {
            for (k in n) {
                for (i = 2; i <= n[k]; i++) for (j = i; j > 1 && v[k, j - 1] + 0 > v[k, j] + 0; j--) { t = v[k, j]; v[k, j] = v[k, j - 1]; v[k, j - 1] = t }
                printf "| %s | %d | %d | %d |\n", k, n[k], v[k, int((n[k] + 1) / 2)], v[k, int(n[k] * 0.99 + 0.999)]
            }
        }' | sort
}

for key in "isolation and moment" fault; do
    printf '\n| %s | cells | p50 ms | p99 ms |\n|---|---|---|---|\n' "$key"
    table "$key"
done
