#!/bin/bash
# Four losses on the mouse heads, three seeds, four folds.
#
#   bash study/mouse.sh MOUSE_CT runs/mouse-study
set -euo pipefail
data=$1 out=${2:-runs/mouse-study}
shared=(--config=configs/mouse_ct.py --config.data.root="$data" --config.aligned.on=False
  --config.grid.side=32 --config.train.steps=800 --config.evaluation.ela_radius_mm=8.0 --config.report.on=False)
runs=()
cross() {
  local name=$1; shift
  for seed in ${SEEDS:-0 1 2}; do
    python launch.py --mode=crossval --workdir="$out/$name-$seed" --config.seed="$seed" "${shared[@]}" "$@"
    runs+=("$out/$name-$seed")
  done
}
cross emd-0.5
cross emd-2 --config.loss.omega=2.0
cross ce --config.loss.name=ce
cross sse --config.loss.name=sse --config.target.width_vox=2.5 --config.model.logits_bias=-4.0 --config.model.logits_cap=0.0
python launch.py --mode=compare --output="$out/comparison" --runs="$(IFS=,; echo "${runs[*]}")"
