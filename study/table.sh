#!/bin/bash
# The study's table: every row tuned alike, then cross-validated over seeds, then compared.
#
#   bash study/table.sh runs/study
#   JOBS=2 bash study/table.sh runs/study     two rows at a time, each on a core of its own
#
# Some five hours on two cores with JOBS=2. Stopped and started again it goes on where it was.
# SEEDS="0 1" and APPENDIX=no ask for less; TUNED=study/chosen begins with what was chosen before
# (emd-0.5 and ce: at d96f998, validation d-mean 2.19 and 2.02 mm).
set -euo pipefail
out=${1:-runs/study}
shared=(--config.data.root="$out/cohort" --config.crossval.tuning_share=0.25
  --config.grid.side=24 "--config.model.widths=(8,16,32,64)" "--config.aligned.widths=(8,16,32,64)"
  --config.train.steps=1600 --config.aligned.steps=1600 --config.log.save_every=100
  --config.report.on=False)
rows="emd-0.5 ce sse distance-0.5 emd-2 distance-2 rpn emd-exponential ce-exponential dsnt"
two_looks="fine-emd fine-ce"
plain="plain-emd-2 plain-distance-0.5 plain-distance-2"

# describe ROW: its config, and the factor of its own that is tried with the rate
describe() {
  local exponential=(--config.target.kind=exponential)
  local as_published=(--config.model.logits_cap=0.0 --config.optim.lr=2e-3)
  case $1 in
    emd-0.5)         config=(--config=configs/emd.py); factor=loss.lambda2=0.1,0.2,0.4 ;;
    ce)              config=(--config=configs/ce.py); factor=target.width_vox=1.0,1.5,2.5 ;;
    sse)             config=(--config=configs/sse.py); factor=target.width_vox=1.5,2.5,3.5 ;;
    distance-0.5)    config=(--config=configs/distance.py); factor=model.logits_cap=0.55,0.75,1.0 ;;
    emd-2)           config=(--config=configs/emd.py --config.loss.omega=2.0)
                     factor=loss.lambda2=0.02,0.2,0.4 ;;
    distance-2)      config=(--config=configs/distance.py --config.loss.omega=2.0)
                     factor=model.logits_cap=0.55,0.75,1.0 ;;
    rpn)             config=(--config=configs/rpn.py); factor=rpn.anchor_mm=15.0,20.0,30.0 ;;
    emd-exponential) config=(--config=configs/emd.py "${exponential[@]}")
                     factor=target.width_vox=0.5,0.7,1.0 ;;
    ce-exponential)  config=(--config=configs/ce.py "${exponential[@]}")
                     factor=target.width_vox=0.5,0.7,1.0 ;;
    dsnt)            config=(--config=configs/dsnt.py); factor=loss.lambda2=0.02,0.1,0.5 ;;
    # with what was chosen for one look
    fine-emd)        config=(--config=configs/fine.py $(cat "$out/emd-0.5-tune/chosen.txt")) ;;
    fine-ce)         config=(--config=configs/fine.py --config.loss.name=ce
                       $(cat "$out/ce-tune/chosen.txt")) ;;
    # as the study has them, without bounded logits
    plain-emd-2)     config=(--config=configs/emd.py --config.loss.omega=2.0 "${as_published[@]}") ;;
    plain-distance-0.5) config=(--config=configs/distance.py "${as_published[@]}") ;;
    plain-distance-2)
      config=(--config=configs/distance.py --config.loss.omega=2.0 "${as_published[@]}") ;;
  esac
}

# rate × the row's own factor, nine trials
tune() {
  describe "$1"
  if [ -n "${TUNED:-}" ] && [ -e "$TUNED/$1.txt" ]; then
    mkdir -p "$out/$1-tune" && cp -n "$TUNED/$1.txt" "$out/$1-tune/chosen.txt"
  fi
  [ -e "$out/$1-tune/chosen.txt" ] || $pinned python launch.py --mode=tune \
    --workdir="$out/$1-tune" --vary=optim.lr=2e-3,5e-3,1.2e-2 --vary="$factor" \
    "${config[@]}" "${shared[@]}"
}

# four folds with one seed
cross() {
  describe "$1"
  local chosen="$out/$1-tune/chosen.txt"
  [ ! -e "$chosen" ] || config+=($(cat "$chosen"))
  $pinned python launch.py --mode=crossval --workdir="$out/$1-$2" --config.seed="$2" \
    "${config[@]}" "${shared[@]}"
}

if [ $# -gt 1 ]; then # table.sh OUT tune|cross ROW [SEED], called by `each`
  pinned=""
  [ -z "${SLOT:-}" ] || ! command -v taskset >/dev/null || pinned="taskset -c $SLOT"
  "${@:2}"
  exit
fi

# each WHAT "ROWS" [SEED]: JOBS at a time
each() {
  local flags=(-P "${JOBS:-1}")
  [ "${JOBS:-1}" = 1 ] || flags+=(--process-slot-var=SLOT)
  tr ' ' '\n' <<<"$2" | xargs "${flags[@]}" -I{} bash "$0" "$out" "$1" {} "${@:3}"
}

# simulated once; the second site is of a seed that nothing was chosen on
[ -e "$out/cohort/cases.csv" ] || python launch.py --config=configs/emd.py --mode=phantom \
  --output="$out/cohort" --config.phantom.cases=256 --config.phantom.test_seed=2
each tune "$rows"
for seed in ${SEEDS:-0 1 2}; do each cross "$rows $two_looks" "$seed"; done
list() { for name in $1; do for seed in $2; do echo "$out/$name-$seed"; done; done | paste -sd,; }
python launch.py --mode=compare --output="$out/comparison" \
  --runs="$(list "$rows $two_looks" "${SEEDS:-0 1 2}")"
if [ "${APPENDIX:-yes}" = yes ]; then
  each cross "$plain" 0
  python launch.py --mode=compare --output="$out/appendix" --runs="$(list "$plain" 0)"
fi
