#!/bin/bash
# Few late scans: whether to draw them more often helps, and whether more of them would.
#
#   bash study/age.sh runs/age
#
# Three trainings on 140 scans of the first site: as they are, late ones drawn more often, and a
# choice of 140 with as many of each age group. All are tested on the second site.
set -euo pipefail
out=${1:-runs/age}
[ -e "$out/many/cases.csv" ] || python launch.py --config=configs/emd.py --mode=phantom \
  --output="$out/many" --config.phantom.cases=1200 --config.phantom.test_seed=3
for kind in drawn even; do python study/choose_ages.py "$out/many" "$out/$kind" --kind=$kind --cases=140; done
runs=()
train() {
  local name=$1 data=$2; shift 2
  for seed in ${SEEDS:-0 1 2}; do
    python launch.py --config=configs/emd.py --workdir="$out/$name-$seed" --config.seed="$seed" \
      --config.data.root="$out/$data" --config.grid.side=32 "--config.model.widths=(8,16,32,64)" \
      --config.train.steps=1600 --config.optim.lr=5e-3 --config.report.on=False "$@"
    runs+=("$out/$name-$seed")
  done
}
train drawn drawn
train balanced drawn --config.train.balance_age=True
train even even
python launch.py --mode=compare --output="$out/comparison" --runs="$(IFS=,; echo "${runs[*]}")"
