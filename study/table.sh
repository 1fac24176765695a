#!/bin/bash
# The study's table: every row tuned alike, then cross-validated over seeds, then compared.
#
#   bash study/table.sh runs/study
#
# Some six hours on two cores. Stopped and started again it goes on where it was.
set -euo pipefail
out=${1:-runs/study}
seeds=${SEEDS:-0 1 2}
shared=(--config.data.root="$out/cohort" --config.crossval.tuning_share=0.25
  --config.grid.side=24 "--config.model.widths=(8,16,32,64)" "--config.aligned.widths=(8,16,32,64)"
  --config.train.steps=1600 --config.aligned.steps=1600 --config.log.save_every=100
  --config.report.on=False)

# simulated once; the second site is of a seed that nothing was chosen on
[ -e "$out/cohort/cases.csv" ] || python launch.py --config=configs/emd.py --mode=phantom \
  --output="$out/cohort" --config.phantom.cases=256 --config.phantom.test_seed=2

# row NAME FACTOR CONFIG...: rate × the row's own factor, nine trials for each row
row() {
  local name=$1 factor=$2; shift 2
  [ -e "$out/$name-tune/chosen.txt" ] || python launch.py --mode=tune --workdir="$out/$name-tune" \
    --vary=optim.lr=2e-3,5e-3,1.2e-2 --vary="$factor" "$@" "${shared[@]}"
  cross "$name" "$@" $(cat "$out/$name-tune/chosen.txt")
}

# cross NAME CONFIG...: four folds for each seed
cross() {
  local name=$1; shift
  for seed in $seeds; do
    python launch.py --mode=crossval --workdir="$out/$name-$seed" --config.seed="$seed" "$@" "${shared[@]}"
  done
}

exponential=(--config.target.kind=exponential)
row emd-0.5         loss.lambda2=0.1,0.2,0.4        --config=configs/emd.py
row ce              target.width_vox=1.0,1.5,2.5    --config=configs/ce.py
row sse             target.width_vox=1.5,2.5,3.5    --config=configs/sse.py
row distance-0.5    model.logits_cap=0.55,0.75,1.0  --config=configs/distance.py
row emd-2           loss.lambda2=0.02,0.2,0.4       --config=configs/emd.py --config.loss.omega=2.0
row distance-2      model.logits_cap=0.55,0.75,1.0  --config=configs/distance.py --config.loss.omega=2.0
row rpn             rpn.anchor_mm=15.0,20.0,30.0    --config=configs/rpn.py
row emd-exponential target.width_vox=0.5,0.7,1.0    --config=configs/emd.py "${exponential[@]}"
row ce-exponential  target.width_vox=0.5,0.7,1.0    --config=configs/ce.py "${exponential[@]}"
row dsnt            loss.lambda2=0.02,0.1,0.5       --config=configs/dsnt.py
# two looks, with what was chosen for one
cross fine-emd --config=configs/fine.py $(cat "$out/emd-0.5-tune/chosen.txt")
cross fine-ce --config=configs/fine.py --config.loss.name=ce $(cat "$out/ce-tune/chosen.txt")

rows="emd-0.5 ce sse distance-0.5 emd-2 distance-2 rpn emd-exponential ce-exponential dsnt fine-emd fine-ce"
list() { for name in $1; do for seed in $2; do echo "$out/$name-$seed"; done; done | paste -sd,; }
python launch.py --mode=compare --output="$out/comparison" --runs="$(list "$rows" "$seeds")"

# appendix: as the study has them, without bounded logits, one seed
if [ "${APPENDIX:-yes}" = yes ]; then
  seeds=0
  plain=(--config.model.logits_cap=0.0 --config.optim.lr=2e-3)
  cross plain-emd-2 --config=configs/emd.py --config.loss.omega=2.0 "${plain[@]}"
  cross plain-distance-0.5 --config=configs/distance.py "${plain[@]}"
  cross plain-distance-2 --config=configs/distance.py --config.loss.omega=2.0 "${plain[@]}"
  python launch.py --mode=compare --output="$out/appendix" \
    --runs="$(list "plain-emd-2 plain-distance-0.5 plain-distance-2" 0)"
fi
